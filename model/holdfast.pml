/*
 * The lease protocol, see ../lease/doc.go and README.md here.
 *
 * One block with two addresses; one StatefulSet ordinal, web-0 ("S"), whose
 * pods come and go on any node; stateless pods ("T"); an agent on each node
 * with ADD, DEL, upkeep, and updates of the block that share a queue; the
 * elected agent's two collectors, and its end of a lost node's leases. Each
 * step is one access to the API server or to the agent's memory, and steps of
 * all of them come in any order.
 *
 * A step is atomic together with what the agent does under its lock right
 * after the answer. A journal entry that is set is on disk, except where a
 * mutant says otherwise: the product syncs before it answers and before it
 * sends. Versions are not numbers: whoever judged a state has a bit "fresh"
 * that the next write of the object takes away, and a guarded update needs
 * it. An update whose answer was lost waits in "late" for as long as the
 * version stands, and may land there at any moment.
 */

/*
 * ---- the scope, set by ./check with -D ----
 *
 * besides the numbers: LAG, views of the block that lag behind; PREPARE, ADDs
 * are prepared when the pod is bound; WRITER, endpoints are refreshed after
 * ADD; FENCE, node 0 is out of service for a while. A BUG_ is planted.
 */
#ifndef NODES
#define NODES 2
#endif
#ifndef SPODS
#define SPODS 2		/* how many pods web-0 has been, one after another */
#endif
#ifndef TPODS
#define TPODS 1		/* how many stateless pods there are in all */
#endif
#ifndef TSLOTS
#define TSLOTS 1	/* how many of them at a time */
#endif
#ifndef LOSSES
#define LOSSES 0	/* updates whose answer is lost */
#endif
#ifndef CRASHES
#define CRASHES 0	/* agents that start anew, by memory lost and journal kept */
#endif
#ifndef SCALES
#define SCALES 1	/* changes of the replica count, from wanted; odd: ends unwanted */
#endif
#ifndef DELS
#define DELS 0		/* DELs that may come late, twice or never, at a time */
#endif
#ifndef RESTARTS
#define RESTARTS 0	/* sandboxes made anew for the same pod */
#endif
#ifndef GIVEUPS
#define GIVEUPS 0	/* ADDs that the runtime does not wait for to their end */
#endif
#ifndef YIELDS
#define YIELDS 1	/* addresses that are yielded, of all that could be */
#endif
#ifndef COLLECTORS
#define COLLECTORS 1	/* agents that think they are elected */
#endif

#define ADDRS	2
#define None	7
#define set(a)	(1 << (a))
#define has(s, a)	(((s) >> (a)) & 1)
#define PODS	(TSLOTS + 1)
#define QUEUE	(PODS + 1)	/* who may have an amendment under way: a pod's ADD, or upkeep */
#define Keeper	PODS

/* ---- the API server ---- */
byte lessee[ADDRS];		/* 0, or node + 1 */
unsigned pins : 2, marks : 2;	/* sets of addresses: pinned to S, marked as releasing */
unsigned epAddr : 3 = None, epUID : 3;	/* the endpoint of web-0; None: it does not exist */
bool wanted = 1;		/* the StatefulSet wants the ordinal */

mtype = { BlockPut, PointerPut, PointerCreate, PointerDelete };
typedef Late { mtype what; byte le[ADDRS]; unsigned p : 2, m : 2, addr : 3, uid : 3 };
#if LOSSES
Late late[LOSSES];
unsigned losses : 2;
#endif

/* ---- pods and what runs of them: pod 0 is web-0, the others are stateless ---- */
typedef Pod {
	unsigned uid : 3, node : 2;	/* the object; uid 0: none */
	bool live;		/* a sandbox runs */
	unsigned addr : 3, cont : 2;	/* with this address and container ID */
	byte adding;		/* container ID of the ADD that the runtime waits for */
	unsigned used : 2;	/* the last container ID of this UID, 1 or 2 */
	bool prepared;
};
Pod pod[PODS];
unsigned sUsed : 3, tUsed : 3, scales : 3, restarts : 2, crashes : 2, giveups : 2, yields : 2;
unsigned home : 3 = None;		/* the address that web-0 has had and been wanted ever since */
typedef Del { unsigned uid : 3, node : 2, cont : 2 };
#if DELS
Del del[DELS];
#define delLater(u, n, c)	/* the runtime sends DEL for what has failed */ \
	if :: del[0].uid == 0 -> del[0].uid = u; del[0].node = n; del[0].cont = c :: else fi
#else
#define delLater(u, n, c)	skip
#endif

/* ---- agents ---- */
mtype = { Assigned, Placing, Retained, Cooling, Yielding };	/* journal; 0: no entry */
mtype = { Claim, Pin, Unmark, Mark, Unpin, Withdraw, Yield };		/* amendments */
mtype = { Ok, Refused, Failed };				/* what became of one */
mtype = { Begin, ReadBlock, Put, Lives, Confirm, Unmarking, ByPointer, Follow, Lives2, Lives3, Take,
	New, Claiming, Claimed, Again, Pinning, Point, Pointing, Journal, Answer,
	Finishing, Settle, Named, Marking, Unpinning,
	PodThere, Wanted, Pointer, Judge, Gone, Bound };	/* where a call is; 0: no call */

typedef Call { mtype pc; unsigned uid : 3, cont : 2, addr : 3; bool fresh, via };
typedef Node {
	mtype st[ADDRS]; byte uid[ADDRS], cont[ADDRS];	/* the journal; cont is a set of container IDs, 1 and 2 */
	unsigned newest : 1;				/* of web-0's entries, by Since */
#ifdef BUG_ANSWER_FIRST
	byte unsynced;
#endif
	unsigned busy : 2;
	byte vle[ADDRS]; unsigned vp : 2, vm : 2; bool trusted, vfresh;	/* the view of the block */
	Call call[QUEUE];				/* ADD of each pod; upkeep */
	mtype op[QUEUE], res[QUEUE];			/* amendments and their results */
	byte had[QUEUE];				/* what a claim found leased when first judged */
	mtype cpc; unsigned batch : 4, give : 2; bool cfresh, yieldLast;	/* the commit of a batch */
	unsigned pUID : 3, pAddr : 3, pOf : 3; bool pfresh;			/* the endpoint as read ahead for pUID */
	bool wPend, wfresh, wNone; mtype wpc; unsigned wAddr : 3, wUID : 3;	/* the writer of endpoints */
};
Node node[NODES];

/* ---- the elected agent ---- */
typedef Collector { mtype pc; bool fresh, again, wanted;
	unsigned all : 2, p : 2, m : 2, bare : 2, far : 2, addr : 3, uid : 3, epUID : 3, out : 2 };
Collector gc[COLLECTORS];
mtype ppc; bool pgFresh;
#ifdef FENCE
mtype fpc, hpc; bool fFresh, hFresh;
bool out, outs, trusts = 1;	/* node 0 is out of service, has been; its agent may assign anew */
#define ready(n)	(n != 0 || trusts)
#define leasing0	(lessee[0] == 1 || lessee[1] == 1)
#define endLeases()	if :: tle[0] == 1 -> tle[0] = 0 :: else fi; if :: tle[1] == 1 -> tle[1] = 0 :: else fi
#else
#define ready(n)	true
#endif

hidden byte i, j, k;		/* scratch within one step */
hidden byte tle[ADDRS], tp, tm, refused, changed;

/* ---- promises ---- */
#define owned(a)	(has(pins, a) && epAddr == (a))
/*
 * A take-over may land when its pod, which was seen before it was sent, is
 * gone and a later one has the address where it was: that one confirmed it by
 * a read. Its pin keeps the address from everybody else.
 */
bool outrun;

inline promises() {
	for (i : 0 .. PODS - 1) {
		if
		:: pod[i].live ->
			assert(lessee[pod[i].addr] == pod[i].node + 1 || (i == 0 && outrun));	/* the lease is its node's */
			assert(node[pod[i].node].st[pod[i].addr] == Assigned && node[pod[i].node].uid[pod[i].addr] == pod[i].uid);
			assert(node[pod[i].node].cont[pod[i].addr] & pod[i].cont);
			if
			:: i == 0 -> assert(has(pins, pod[0].addr))	/* and a member's is pinned */
			:: else -> assert(!owned(pod[i].addr))		/* to nobody else */
			fi;
			for (j : 0 .. PODS - 1) {
				assert(i == j || !pod[j].live || pod[i].addr != pod[j].addr)	/* promise 1 */
			}
		:: else
		fi
	}
	i = 0; j = 0
}

/* ---- what a node knows ---- */
inline see(n) {
	node[n].vle[0] = lessee[0]; node[n].vle[1] = lessee[1];
	node[n].vp = pins; node[n].vm = marks; node[n].trusted = 1; node[n].vfresh = 1
}

/* ---- guarded updates ---- */
inline blockMoved() {
	for (i : 0 .. NODES - 1) {
		node[i].vfresh = 0; node[i].cfresh = 0; node[i].call[0].fresh = 0;
#ifndef LAG
		see(i)
#endif
	}
	for (i : 0 .. COLLECTORS - 1) { gc[i].fresh = 0 }
#ifdef FENCE
	fFresh = 0; hFresh = 0;
#endif
#if LOSSES
	for (i : 0 .. LOSSES - 1) {
		if :: late[i].what == BlockPut -> clearLate(i) :: else fi
	}
#endif
	promises()
}

inline pointerMoved() {
	for (i : 0 .. NODES - 1) { node[i].pfresh = 0; node[i].wfresh = 0 }
	pgFresh = 0;
#if LOSSES
	for (i : 0 .. LOSSES - 1) {
		if :: late[i].what == PointerPut || late[i].what == PointerDelete -> clearLate(i) :: else fi
	}
#endif
	promises()
}

#if LOSSES
inline clearLate(x) {
	late[x].what = 0; late[x].p = 0; late[x].m = 0; late[x].addr = 0; late[x].uid = 0;
	late[x].le[0] = 0; late[x].le[1] = 0
}
#define canLose	(losses < LOSSES)
#define canFail	(losses > 0)
inline loseBlock() {		/* the update from scratch tle, tp, tm */
	late[losses].what = BlockPut; late[losses].p = tp; late[losses].m = tm;
	late[losses].le[0] = tle[0]; late[losses].le[1] = tle[1]; losses++
}
#define lateOf(u, seen)	late[losses].uid = (seen -> u : 0)	/* for outrun */
#define losePointer(w, a, u)	late[losses].what = w; late[losses].addr = a; late[losses].uid = u; losses++
proctype Landing(byte x) {
	do
	:: d_step { late[x].what == BlockPut ->
		printf("      a late update of the block lands: lessees %d %d, pins %d, marks %d\n",
			late[x].le[0], late[x].le[1], late[x].p, late[x].m);
		outrun = outrun || (late[x].uid != 0 && pod[0].uid != 0 && late[x].uid != pod[0].uid);
		lessee[0] = late[x].le[0]; lessee[1] = late[x].le[1]; pins = late[x].p; marks = late[x].m;
		blockMoved() }
	:: d_step { late[x].what == PointerPut || (late[x].what == PointerCreate && epAddr == None) ->
		printf("      a late update of the endpoint lands: a%d for uid %d\n", late[x].addr, late[x].uid);
		epAddr = late[x].addr; epUID = late[x].uid; clearLate(x); pointerMoved() }
	:: d_step { late[x].what == PointerDelete ->
		printf("      a late deletion of the endpoint lands\n");
		epAddr = None; epUID = 0; pointerMoved() }
	:: d_step { late[x].what != 0 -> clearLate(x) }		/* it never lands */
	od
}
#else
#define canLose	false
#define canFail	false
#define loseBlock()		skip
#define lateOf(u, seen)		skip
#define losePointer(w, a, u)	skip
#endif

#define leased(n, a)	(node[n].vle[a] == n + 1)
#define leasesAny(n)	(leased(n, 0) || leased(n, 1))
#define free(n, a)	(leased(n, a) && !has(node[n].vp, a) && node[n].st[a] == 0 && !has(node[n].busy, a))
#define sticky(n, a)	(node[n].st[a] == Placing || node[n].st[a] == Retained || (node[n].st[a] == Assigned && node[n].uid[a] <= SPODS))
#ifdef BUG_LATE_ADD
#define others(n, c)	0
#else
#define others(n, c)	((node[n].st[c.addr] == Assigned && node[n].uid[c.addr] == c.uid) -> node[n].cont[c.addr] : 0)
#endif
#define drop(n, a)	node[n].st[a] = 0; node[n].uid[a] = 0; node[n].cont[a] = 0
#define enter(n, a, s, u, c)	node[n].st[a] = s; node[n].uid[a] = u; node[n].cont[a] = c
#define hold(n, a)	node[n].busy = node[n].busy | set(a)
#define idle(n, a)	node[n].busy = node[n].busy & ~set(a)

/* choose sets v to an address for which ok(n, a), any of them, or to None. */
#define choose(v, ok, n)	if :: ok(n, 0) -> v = 0 :: ok(n, 1) -> v = 1 :: else -> v = None fi

/* ---- amend: guarded updates of the block, several in one ---- */
#define Judged	4
#define leasedHere(n)	k = (tle[0] == n + 1 -> 1 : 0) + (tle[1] == n + 1 -> 2 : 0)

inline applyOne(n, q) {
	k = node[n].call[q].addr;
	if
	:: node[n].op[q] == Claim ->
		leasedHere(n);
		if :: node[n].had[q] == 0 -> node[n].had[q] = Judged | k :: else fi;
		if
		:: k & ~node[n].had[q]		/* an attempt without an answer has landed */
		:: !(k & ~node[n].had[q]) && tle[0] == 0 && !has(tp, 0) -> tle[0] = n + 1; changed = 1
		:: else ->
			if
			:: !(k & ~node[n].had[q]) && tle[1] == 0 && !has(tp, 1) -> tle[1] = n + 1; changed = 1
			:: else -> refused = refused | set(q)
			fi
		fi
	:: node[n].op[q] == Yield ->
		for (j : 0 .. ADDRS - 1) {
			if :: has(node[n].give, j) && tle[j] == n + 1 && !has(tp, j) -> tle[j] = 0; changed = 1 :: else fi
		}
	:: node[n].op[q] == Pin ->
		if
		:: tle[k] != n + 1 -> refused = refused | set(q)
		:: tle[k] == n + 1 && (!has(tp, k) || has(tm, k)) -> tp = tp | set(k); tm = tm & ~set(k); changed = 1
		:: else
		fi
	:: node[n].op[q] == Unmark ->
		if
		:: tle[k] != n + 1 || !has(tp, k) -> refused = refused | set(q)
		:: tle[k] == n + 1 && has(tm, k) -> tm = tm & ~set(k); changed = 1
		:: else
		fi
	:: node[n].op[q] == Mark ->
		if
		:: tle[k] != n + 1 -> refused = refused | set(q)
		:: tle[k] == n + 1 && has(tp, k) && !has(tm, k) -> tm = tm | set(k); changed = 1
		:: else
		fi
	:: node[n].op[q] == Unpin ->
		if
		:: tle[k] != n + 1 || (has(tp, k) && !has(tm, k)) -> refused = refused | set(q)
		:: tle[k] == n + 1 && has(tp, k) && has(tm, k) -> tp = tp & ~set(k); tm = tm & ~set(k); changed = 1
		:: else
		fi
#ifdef BUG_WITHDRAW_ONE_STEP
	:: node[n].op[q] == Withdraw ->
		if :: tle[k] == n + 1 && has(tp, k) -> tp = tp & ~set(k); tm = tm & ~set(k); changed = 1 :: else fi
#endif
	fi
}

inline applyBatch(n) {		/* to scratch; refused is the set of those refused */
	refused = 0; changed = 0;
	if :: has(node[n].batch, Keeper) && !node[n].yieldLast -> applyOne(n, Keeper) :: else fi;
	for (i : 0 .. PODS - 1) {
		if :: has(node[n].batch, i) -> applyOne(n, i) :: else fi
	}
	if :: has(node[n].batch, Keeper) && node[n].yieldLast -> applyOne(n, Keeper) :: else fi;
	j = 0; k = 0
}

inline endBatch(n, error) {	/* results to whom waits */
	for (i : 0 .. QUEUE - 1) {
		if
		:: has(node[n].batch, i) ->
			node[n].op[i] = 0; node[n].had[i] = 0;
			node[n].res[i] = (error -> Failed : (has(refused, i) -> Refused : Ok))
		:: else
		fi
	}
	node[n].batch = 0; node[n].cpc = 0; node[n].cfresh = 0; node[n].yieldLast = 0; i = 0
}

inline yieldingNow(n) {
	node[n].give = 0;
	for (i : 0 .. ADDRS - 1) {
		if :: node[n].st[i] == Yielding -> node[n].give = node[n].give | set(i) :: else fi
	}
}

inline fromBlock()	{ tle[0] = lessee[0]; tle[1] = lessee[1]; tp = pins; tm = marks }
inline toBlock()	{ lessee[0] = tle[0]; lessee[1] = tle[1]; pins = tp; marks = tm; blockMoved() }
#define asBlock	(tle[0] == lessee[0] && tle[1] == lessee[1] && tp == pins && tm == marks)

/*
 * The base is judged; an update none of whose parts changes anything is not
 * sent. Parts that undo each other are: a yield in it may have to settle an
 * earlier one.
 */
inline judgeBatch(n, x0, x1, xp, xm) {
	if :: has(node[n].batch, Keeper) && node[n].op[Keeper] == Yield -> yieldingNow(n) :: else fi;
	tle[0] = x0; tle[1] = x1; tp = xp; tm = xm;
	applyBatch(n);
#ifdef BUG_NET_CHANGE
	changed = (tle[0] != x0 || tle[1] != x1 || tp != xp || tm != xm);
#endif
	if
	:: !changed ->
		printf("n%d    amend: nothing to write\n", n); endBatch(n, false)
	:: else -> node[n].cpc = Put
	fi
}

#define posted(n, q)	(node[n].op[q] != 0)

proctype Commit(byte n) {
	bool order;
	do
	:: atomic { node[n].cpc == 0 && (posted(n, 0) || posted(n, 1) || posted(n, Keeper)
#if TSLOTS > 1
			|| posted(n, 2)
#endif
		) ->
		if
		:: order = 0
		:: node[n].op[Keeper] == Yield && (node[n].op[0] == Claim || node[n].op[1] == Claim) -> order = 1
		fi;
		d_step {
		node[n].yieldLast = order; order = 0;
		for (i : 0 .. QUEUE - 1) {
			if :: posted(n, i) -> node[n].batch = node[n].batch | set(i) :: else fi
		}
		if
		:: node[n].trusted && leasesAny(n) ->
			node[n].cfresh = node[n].vfresh;
			judgeBatch(n, node[n].vle[0], node[n].vle[1], node[n].vp, node[n].vm)
		:: else -> node[n].cpc = ReadBlock
		fi } }
	:: d_step { node[n].cpc == ReadBlock ->
		see(n); node[n].cfresh = 1;
		judgeBatch(n, lessee[0], lessee[1], pins, marks) }
	:: d_step { node[n].cpc == ReadBlock && canFail ->
		printf("n%d    amend: gives up\n", n);
		endBatch(n, true) }
	:: d_step { node[n].cpc == Put && node[n].cfresh ->
		fromBlock(); applyBatch(n); toBlock(); see(n);
		printf("n%d    amend: block is now lessees %d %d, pins %d, marks %d\n", n, lessee[0], lessee[1], pins, marks);
		endBatch(n, false) }
	:: d_step { node[n].cpc == Put && node[n].cfresh && canLose ->
		fromBlock(); applyBatch(n); loseBlock();
		printf("n%d    amend: no answer, lessees %d %d, pins %d, marks %d may land\n", n, tle[0], tle[1], tp, tm);
		node[n].trusted = 0; node[n].cpc = ReadBlock }
	:: d_step { node[n].cpc == Put && !node[n].cfresh ->
		printf("n%d    amend: conflict\n", n);
		node[n].trusted = 0; node[n].cpc = ReadBlock }
	od
}

#ifdef LAG
/* A watch that lags: it brings the newest state at some moment, or never. */
proctype Watch(byte n) {
	do
	:: d_step { !node[n].vfresh ->
		printf("n%d    watch: lessees %d %d, pins %d, marks %d\n", n, lessee[0], lessee[1], pins, marks);
		see(n) }
	:: d_step { !node[n].trusted -> node[n].trusted = 1 }	/* the same state once more */
	od
}
#endif

/* ---- ADD of a StatefulSet pod, and Prepare (container 0) ahead of it ---- */
#define C	node[n].call[0]
#define T	node[n].call[q]
#define known(n, a)	((node[n].st[a] == Assigned || node[n].st[a] == Retained) && node[n].uid[a] == C.uid && leased(n, a))
#define ofName(n, a)	(!has(node[n].busy, a) && (node[n].st[a] == Retained || (node[n].st[a] == Assigned && node[n].uid[a] <= SPODS)))
#define newestOf(n, a)	(ofName(n, a) && (node[n].newest == (a) || !ofName(n, 1 - (a))))
#define unfinished(n, a)	(node[n].st[a] == Placing && leased(n, a) && !has(node[n].busy, a))
#ifdef BUG_NO_TURN
#define settling	false
#define noCall	true
#else
#define settling	(node[n].call[Keeper].pc != 0 && node[n].call[Keeper].pc != Finishing)
#define noCall	(C.pc == 0)
#endif

inline over(n, q) {		/* the call ends; on an error its ADD fails */
	node[n].call[q].pc = 0; node[n].call[q].uid = 0; node[n].call[q].cont = 0; node[n].call[q].addr = 0;
	node[n].call[q].fresh = 0; node[n].call[q].via = 0; node[n].op[q] = 0; node[n].res[q] = 0; node[n].had[q] = 0
}
inline fail(n, q) {
	printf("n%d    uid %d c%d: ADD fails\n", n, node[n].call[q].uid, node[n].call[q].cont);
	if
	:: node[n].call[q].cont != 0 && pod[q].uid == node[n].call[q].uid && pod[q].adding == node[n].call[q].cont ->
		pod[q].adding = 0;
		delLater(pod[q].uid, n, node[n].call[q].cont)
	:: else
	fi;
	over(n, q)
}
inline forget(n) { node[n].pUID = 0; node[n].pAddr = 0; node[n].pOf = 0; node[n].pfresh = 0 }
inline readPointer(n) { node[n].pUID = C.uid; node[n].pAddr = epAddr; node[n].pOf = epUID; node[n].pfresh = 1 }
inline failPlace(n) {
	if :: C.addr != None -> idle(n, C.addr) :: else fi;
	if :: C.cont != 0 -> forget(n) :: else fi;
	fail(n, 0)
}
inline post(n, q, what) { node[n].op[q] = what; node[n].res[q] = 0 }
inline answer(n, q) {
	idle(n, node[n].call[q].addr);
	if
	:: node[n].call[q].cont != 0 && pod[q].uid == node[n].call[q].uid && pod[q].adding == node[n].call[q].cont ->
		printf("n%d    uid %d c%d: runs with a%d\n", n, pod[q].uid, pod[q].adding, node[n].call[q].addr);
		pod[q].live = 1; pod[q].addr = node[n].call[q].addr; pod[q].cont = pod[q].adding; pod[q].adding = 0;
		if
		:: q == 0 ->
			assert(home == None || home == pod[0].addr);	/* promise 2 */
			if :: wanted -> home = pod[0].addr :: else fi;
			
#ifdef WRITER
			node[n].wPend = 1
#endif
		:: else
		fi;
		promises()
	:: else -> printf("n%d    uid %d c%d: answered, and nobody listens\n", n, node[n].call[q].uid, node[n].call[q].cont)
	fi;
	if :: q == 0 && pod[0].uid != C.uid -> forget(n) :: else fi;
	over(n, q)
}

#if CRASHES || GIVEUPS
#define assigned(pc, answer)	pc = Answer
#else
#define assigned(pc, answer)	answer	/* nothing of interest can come between */
#endif
#ifdef BUG_ANSWER_FIRST
#undef assigned
#define assigned(pc, answer)	node[n].unsynced = node[n].unsynced | set(T.addr); answer
#endif

#ifdef BUG_NO_LOOK_AT_POD
#define livesHere	true
#else
#define livesHere	(pod[0].uid == C.uid && pod[0].node == n)
#endif

/* A view that may be old is enough to try a take-over on, not to say no. */
#define seesElsewhere	(node[n].trusted && leasesAny(n) && has(node[n].vp, C.addr) && node[n].vle[C.addr] != n + 1)

proctype Place(byte n) {
	do
	:: atomic { C.pc == Begin && !settling ->	/* Recall, known, findHere */
		choose(C.addr, known, n);
		if
		:: C.addr != None -> d_step { hold(n, C.addr); C.pc = Journal }
#ifdef FENCE
		:: C.addr == None && !ready(n) -> d_step { failPlace(n) }
#endif
		:: C.addr == None && ready(n) ->
			choose(C.addr, newestOf, n);
			d_step {
			if
			:: C.addr == None -> C.pc = ByPointer
			:: else ->
				hold(n, C.addr);
				C.pc = (node[n].st[C.addr] == Assigned -> Lives : Confirm)
			fi }
		fi }
	:: d_step { C.pc == Lives ->
		if :: livesHere -> C.pc = Confirm :: else -> failPlace(n) fi }
	:: d_step { C.pc == Confirm ->
		see(n);
		if
		:: !has(pins, C.addr) || lessee[C.addr] != n + 1 ->
			idle(n, C.addr);
			C.pc = (C.via -> New : ByPointer); C.addr = None; C.via = 0
		:: else ->
			if
#ifndef BUG_MARK_STAYS
			:: has(marks, C.addr) -> post(n, 0, Unmark); C.pc = Unmarking
#endif
			:: else -> C.pc = Journal
			fi
		fi }
	:: d_step { C.pc == Unmarking && node[n].res[0] != 0 ->
		if
		:: node[n].res[0] == Ok -> C.pc = Journal
		:: node[n].res[0] == Refused -> idle(n, C.addr); C.pc = (C.via -> New : ByPointer); C.addr = None; C.via = 0
		:: else -> failPlace(n)
		fi;
		node[n].res[0] = 0 }
	:: d_step { C.pc == ByPointer ->
		if :: node[n].pUID != C.uid -> readPointer(n) :: else fi;
		C.addr = node[n].pAddr;
		C.pc = (C.addr == None -> New : Follow) }
	:: d_step { C.pc == Follow && seesElsewhere ->
		C.fresh = node[n].vfresh; C.pc = Lives2 }
#ifdef BUG_VIEW_SAYS_NO
	:: d_step { C.pc == Follow && node[n].trusted && leasesAny(n) && !has(node[n].vp, C.addr) -> C.addr = None; C.pc = New }
#endif
	:: d_step { C.pc == Follow && !seesElsewhere ->
		see(n);
		if
		:: !has(pins, C.addr) -> C.addr = None; C.pc = New
		:: else ->
			if
			:: lessee[C.addr] != n + 1 -> C.fresh = 1; C.pc = Lives2
			:: else ->
				if
				:: has(node[n].busy, C.addr) || (node[n].st[C.addr] == Assigned && !sticky(n, C.addr)) -> C.addr = None; C.pc = New
				:: else -> hold(n, C.addr); C.via = 1; C.pc = Confirm
				fi
			fi
		fi }
	:: d_step { C.pc == Lives2 ->
		if
		:: livesHere ->
			C.pc = Take; C.via = (pod[0].uid == C.uid);
			if
			:: !has(node[n].busy, C.addr) -> enter(n, C.addr, Retained, 0, 0); node[n].newest = C.addr
			:: else
			fi
		:: else -> C.addr = None; failPlace(n)
		fi }
	:: d_step { C.pc == Take && C.fresh ->
		printf("n%d    uid %d takes a%d over\n", n, C.uid, C.addr);
		outrun = outrun || (C.via && pod[0].uid != 0 && pod[0].uid != C.uid);
		fromBlock(); tle[C.addr] = n + 1; tm = tm & ~set(C.addr); toBlock(); see(n); C.fresh = 0; C.via = 0;
		if
		:: has(node[n].busy, C.addr) -> C.addr = None; C.pc = New
		:: else -> hold(n, C.addr); C.pc = Journal
		fi }
	:: d_step { C.pc == Take && C.fresh && canLose ->
		printf("n%d    uid %d takes a%d over: no answer\n", n, C.uid, C.addr);
		fromBlock(); tle[C.addr] = n + 1; tm = tm & ~set(C.addr);
		lateOf(C.uid, C.via); loseBlock();
		node[n].trusted = 0; C.fresh = 0; C.via = 0;
#ifdef BUG_LOST_IS_FAILED
		C.addr = None; C.pc = New }
#else
		C.pc = Follow }
#endif
	:: d_step { C.pc == Take && !C.fresh -> node[n].trusted = 0; C.via = 0; C.pc = Follow }
	:: d_step { C.pc == Follow -> C.addr = None; failPlace(n) }	/* no more attempts */
	:: atomic { C.pc == New ->
		if
		:: C.cont == 0 -> d_step { printf("n%d    uid %d: nothing to prepare\n", n, C.uid); over(n, 0) }
		:: else ->
			choose(C.addr, unfinished, n);
			if
			:: C.addr != None -> d_step { hold(n, C.addr); C.pc = Again }
			:: else ->
				choose(C.addr, free, n);
				d_step {
				if
				:: C.addr != None -> hold(n, C.addr); enter(n, C.addr, Placing, C.uid, C.cont); post(n, 0, Pin); C.pc = Pinning
				:: else -> post(n, 0, Claim); C.pc = Claiming
				fi }
			fi
		fi }
	:: d_step { C.pc == Claiming && node[n].res[0] != 0 ->
		C.pc = Claimed; node[n].res[0] = 0 }
	:: atomic { C.pc == Claimed ->
		choose(C.addr, free, n);
		d_step {
		if
		:: C.addr != None -> hold(n, C.addr); enter(n, C.addr, Placing, C.uid, C.cont); post(n, 0, Pin); C.pc = Pinning
		:: else -> failPlace(n)
		fi } }
	:: d_step { C.pc == Again ->		/* what an earlier attempt has pinned is read again */
#ifndef BUG_STALE_PIN
		see(n);
#endif
		enter(n, C.addr, Placing, C.uid, C.cont); post(n, 0, Pin); C.pc = Pinning }
	:: d_step { C.pc == Pinning && node[n].res[0] != 0 ->
		if
		:: node[n].res[0] == Ok -> C.pc = Point
		:: else -> failPlace(n)
		fi;
		node[n].res[0] = 0 }
	:: d_step { C.pc == Point ->
		if :: node[n].pUID != C.uid -> readPointer(n) :: else fi;
		C.pc = (node[n].pAddr != None && node[n].pOf != C.uid -> Lives3 : Pointing) }
	:: d_step { C.pc == Lives3 ->
#ifndef BUG_POINT_UNSEEN
		if :: livesHere -> C.pc = Pointing :: else -> failPlace(n) fi }
#else
		C.pc = Pointing }
#endif
	:: d_step { C.pc == Pointing && (node[n].pAddr == None -> epAddr == None : node[n].pfresh) ->
		printf("n%d    uid %d: endpoint names a%d\n", n, C.uid, C.addr);
		epAddr = C.addr; epUID = C.uid; pointerMoved(); readPointer(n); C.pc = Journal }
	:: d_step { C.pc == Pointing && (node[n].pAddr == None -> epAddr == None : node[n].pfresh) && canLose ->
		printf("n%d    uid %d: endpoint names a%d: no answer\n", n, C.uid, C.addr);
		losePointer((node[n].pAddr == None -> PointerCreate : PointerPut), C.addr, C.uid);
		failPlace(n) }
	:: d_step { C.pc == Pointing && !(node[n].pAddr == None -> epAddr == None : node[n].pfresh) ->
		printf("n%d    uid %d: endpoint was written by somebody else\n", n, C.uid);
		idle(n, C.addr); forget(n); C.addr = None; C.pc = Begin }
	:: d_step { C.pc == Journal ->
		if
		:: C.cont == 0 && node[n].st[C.addr] == Assigned && node[n].uid[C.addr] == C.uid
		:: else ->
			k = C.cont | others(n, C);
			enter(n, C.addr, Assigned, C.uid, k); node[n].newest = C.addr; k = 0
		fi;
		printf("n%d    uid %d c%d: a%d is assigned\n", n, C.uid, C.cont, C.addr);
		C.pc = Answer }
	:: d_step { C.pc == Answer -> answer(n, 0) }
	od
}

/* ---- ADD of a stateless pod ---- */
#define knownT(n, a)	((node[n].st[a] == Assigned || node[n].st[a] == Cooling) && node[n].uid[a] == T.uid && leased(n, a))

proctype Pick(byte n; byte q) {
	do
	:: atomic { T.pc == Begin ->
		choose(T.addr, knownT, n);
		if
		:: T.addr != None -> d_step { hold(n, T.addr); T.pc = Journal }
#ifdef FENCE
		:: T.addr == None && !ready(n) -> d_step { fail(n, q) }
#endif
		:: T.addr == None && ready(n) ->
			choose(T.addr, free, n);
			d_step {
			if
			:: T.addr != None -> hold(n, T.addr); T.pc = Journal
			:: else -> post(n, q, Claim); T.pc = Claiming
			fi }
		fi }
	:: atomic { T.pc == Claiming && node[n].res[q] != 0 ->
		choose(T.addr, free, n);
		d_step {
		node[n].res[q] = 0;
		if
		:: T.addr != None -> hold(n, T.addr); T.pc = Journal
		:: else -> fail(n, q)
		fi } }
	:: d_step { T.pc == Journal ->
		k = T.cont | others(n, T);
		enter(n, T.addr, Assigned, T.uid, k); k = 0;
		printf("n%d    uid %d c%d: a%d is assigned\n", n, T.uid, T.cont, T.addr);
		assigned(T.pc, answer(n, q)) }
	:: d_step { T.pc == Answer -> answer(n, q) }
	od
}

/* ---- DEL, and pods that are no more ---- */
inline releaseOne(n, a) {
	if
	:: node[n].st[a] == Assigned && node[n].uid[a] <= SPODS -> node[n].st[a] = Retained; node[n].newest = a
	:: node[n].st[a] == Assigned && node[n].uid[a] > SPODS -> node[n].st[a] = Cooling
	:: else		/* Placing: Tidy finds out about the pin */
	fi;
	node[n].cont[a] = 0;
	printf("n%d    uid %d gives a%d back\n", n, node[n].uid[a], a)
}
#define givable(n, a)	((node[n].st[a] == Assigned || (node[n].st[a] == Placing && node[n].cont[a] != 0)) && !has(node[n].busy, a))

hidden byte at, du, dc;
#if defined(BUG_BY_NAME)
#define left(a)	((du <= SPODS) == (node[at].uid[a] <= SPODS) -> 0 : node[at].cont[a])
#elif defined(BUG_OLD_DEL)
#define left(a)	(node[at].uid[a] == du -> 0 : node[at].cont[a])
#else
#define left(a)	(node[at].uid[a] == du -> node[at].cont[a] & ~dc : node[at].cont[a])
#endif
#define sentDel(n, u, c)	at = n; du = u; dc = c; release(); promises()
inline release() {		/* what no sandbox has any more */
	for (i : 0 .. ADDRS - 1) {
		k = left(i);
		if
		:: (node[at].st[i] == Assigned || node[at].st[i] == Placing) && k != node[at].cont[i] ->
			if
			:: k != 0 -> node[at].cont[i] = k
			:: k == 0 && !has(node[at].busy, i) -> releaseOne(at, i)
			:: else
			fi
		:: else
		fi
	}
	i = 0; k = 0
}
#define bound(n)	((pod[0].uid != 0 && pod[0].node == n) || (pod[1].uid != 0 && pod[1].node == n) \
	|| (pod[PODS - 1].uid != 0 && pod[PODS - 1].node == n))
#define here(n, u)	((pod[0].uid == (u) && pod[0].node == n) || (pod[1].uid == (u) && pod[1].node == n) \
	|| (pod[PODS - 1].uid == (u) && pod[PODS - 1].node == n))

#ifdef BUG_ANSWER_FIRST
proctype Sync(byte n) {
	do :: d_step { node[n].unsynced != 0 -> node[n].unsynced = 0 } od
}
#endif

/* ---- upkeep ---- */
#define U	node[n].call[Keeper]
#define nameInUse(n, a)	(node[n].st[1 - (a)] == Assigned && node[n].uid[1 - (a)] <= SPODS)
#define doubt(n, a)	( \
	((node[n].st[a] == Retained || node[n].st[a] == Placing) && nameInUse(n, a)) \
	|| (node[n].st[a] == Placing && node[n].cont[a] == 0) \
	|| (node[n].st[a] == Retained && (!leased(n, a) || !has(node[n].vp, a))) \
	|| (node[n].st[a] == 0 && leased(n, a) && has(node[n].vp, a)))
#define yielding(n)	(node[n].st[0] == Yielding || node[n].st[1] == Yielding)
#define unchanged(n, a)	(!has(node[n].busy, a) && (node[n].st[a] == 0 || sticky(n, a)))

proctype Upkeep(byte n; byte a) {
	do
	:: d_step { node[n].st[a] == Cooling && !has(node[n].busy, a) -> drop(n, a) }
	:: d_step { givable(n, a) && !here(n, node[n].uid[a]) -> releaseOne(n, a) }	/* leak */
	:: d_step { U.pc == 0 && free(n, a) && yields < YIELDS ->
		yields++;
		printf("n%d    a%d is to be yielded\n", n, a);
		enter(n, a, Yielding, 0, 0) }
	:: d_step { a == 0 && U.pc == 0 && yielding(n) -> post(n, Keeper, Yield); U.pc = Finishing }
	:: d_step { a == 0 && U.pc == Finishing && node[n].res[Keeper] != 0 ->
		if
		:: node[n].res[Keeper] == Ok ->
			for (i : 0 .. ADDRS - 1) {
				if :: has(node[n].give, i) && node[n].st[i] == Yielding -> drop(n, i) :: else fi
			}
			i = 0
		:: else
#ifdef BUG_READ_SETTLES
			see(n);		/* the lease is still there, so the yield has failed */
			for (i : 0 .. ADDRS - 1) {
				if :: node[n].st[i] == Yielding -> drop(n, i) :: else fi
			}
			i = 0
#endif
		fi;
		node[n].give = 0;
		over(n, Keeper) }
	:: d_step { U.pc == 0 && noCall && doubt(n, a) ->
		printf("n%d    settle a%d, %e\n", n, a, node[n].st[a]);
		U.addr = a; U.pc = Settle }
	:: d_step { U.pc == Settle && U.addr == a ->
		see(n);
		if
		:: lessee[a] != n + 1 ->
			if :: unchanged(n, a) -> drop(n, a) :: else fi;
			over(n, Keeper)
		:: else ->
			if
			:: has(pins, a) -> U.pc = Named
			:: else ->
				if :: unchanged(n, a) -> enter(n, a, Cooling, 0, 0) :: else fi;
				over(n, Keeper)
			fi
		fi }
	:: d_step { U.pc == Named && U.addr == a ->
		if
		:: epAddr == a ->
			if :: unchanged(n, a) -> node[n].st[a] = Retained :: else fi;
			over(n, Keeper)
		:: else ->
#ifdef BUG_WITHDRAW_ONE_STEP
			post(n, Keeper, Withdraw); U.pc = Unpinning
#else
			post(n, Keeper, Mark); U.pc = Marking
#endif
		fi }
	:: d_step { U.pc == Marking && U.addr == a && node[n].res[Keeper] != 0 ->
		if
		:: node[n].res[Keeper] == Ok -> post(n, Keeper, Unpin); U.pc = Unpinning
		:: else -> over(n, Keeper)
		fi }
	:: d_step { U.pc == Unpinning && U.addr == a && node[n].res[Keeper] != 0 ->
		if
		:: node[n].res[Keeper] == Ok && unchanged(n, a) -> enter(n, a, Cooling, 0, 0)
		:: else
		fi;
		over(n, Keeper) }
	od
}

/* ---- the endpoint of a pod that runs, written after ADD ---- */
#define assignedS(n, a)	(node[n].st[a] == Assigned && node[n].uid[a] <= SPODS)
#define W	node[n]

inline wrote(n, pend) {
	W.wPend = pend; W.wpc = 0; W.wAddr = 0; W.wUID = 0; W.wfresh = 0; W.wNone = 0
}

proctype Writer(byte n) {
	do
	:: atomic { W.wPend && W.wpc == 0 && !assignedS(n, 0) && !assignedS(n, 1) -> W.wPend = 0 }
	:: atomic { W.wPend && W.wpc == 0 && (assignedS(n, 0) || assignedS(n, 1)) ->
		choose(W.wAddr, assignedS, n);
		d_step {
		W.wUID = W.uid[W.wAddr]; W.wfresh = 1; W.wNone = (epAddr == None);
		if
		:: epAddr == W.wAddr && epUID == W.wUID -> wrote(n, 0)
		:: else -> W.wpc = (epAddr != None && epUID != W.wUID -> PodThere : Put)
		fi } }
	:: d_step { W.wpc == PodThere ->
		if :: pod[0].uid == W.wUID -> W.wpc = Put :: else -> wrote(n, 0) fi }
	:: d_step { W.wpc == Put && (W.wNone -> epAddr == None : W.wfresh) ->
		printf("n%d    endpoint is refreshed: a%d for uid %d\n", n, W.wAddr, W.wUID);
		epAddr = W.wAddr; epUID = W.wUID; pointerMoved(); wrote(n, 0) }
	:: d_step { W.wpc == Put && (W.wNone -> epAddr == None : W.wfresh) && canLose ->
		printf("n%d    endpoint is refreshed: a%d for uid %d: no answer\n", n, W.wAddr, W.wUID);
		losePointer((W.wNone -> PointerCreate : PointerPut), W.wAddr, W.wUID); wrote(n, 1) }
	:: d_step { W.wpc == Put && !(W.wNone -> epAddr == None : W.wfresh) -> wrote(n, 1) }
	od
}

/* ---- the elected agent: pins that nobody wants, in two updates ---- */
#define G	gc[x]
#ifdef BUG_UNGUARDED
#define judgedNow	true
#else
#define judgedNow	G.fresh
#endif
#define garbage(a)	(has(pins, a) && (has(marks, a) || !wanted || epAddr != (a)))

inline rest(x) {
	G.pc = 0; G.fresh = 0; G.again = 0; G.wanted = 0; G.all = 0; G.p = 0; G.m = 0; G.bare = 0; G.far = 0; G.addr = 0; G.uid = 0; G.epUID = 0; G.out = 0
}

#ifdef BUG_BARE_POINTER		/* a pointer without its pin counts */
#define elsewhere	(G.epUID == G.uid)
#else
#define elsewhere	(G.epUID == G.uid && has(G.all, G.addr))
#endif

#ifdef BUG_POD_LAST		/* the pod is looked up last, and is gone again by then */
#define first	Wanted
#define afterPointer	PodThere
#else
#define first	PodThere
#define afterPointer	Judge
#endif

#ifdef BUG_LEASED_OR_NOT	/* a pin that no endpoint names goes, though its lessee may be placing it */
#define unleased	3
#else
#define unleased	((lessee[0] == 0 -> 1 : 0) | (lessee[1] == 0 -> 2 : 0))
#endif

/* Another node than the pod's leases it: the pod's agent follows the endpoint there, or never asks. */
#define leasedFar(a)	(pod[0].uid != 0 && lessee[a] != pod[0].node + 1)

/* judge sets G.out to those of the pins for which the verdict is release. */
inline judge(x) {
	G.out = 0;
	for (i : 0 .. ADDRS - 1) {
		if
		:: !has(G.p, i)
		:: has(G.p, i) && G.wanted && G.uid != 0 && G.addr != None && G.addr != i && elsewhere -> G.out = G.out | set(i)
		:: has(G.p, i) && G.wanted && has(G.far, i) && G.addr != i && G.addr != None -> G.out = G.out | set(i)
		:: has(G.p, i) && G.wanted && has(G.bare, i) && G.addr != i -> G.out = G.out | set(i)
		:: has(G.p, i) && G.uid == 0 && !(G.wanted && G.addr == i) -> G.out = G.out | set(i)
		:: else
		fi
	}
	i = 0
}

proctype Collect(byte x) {
	do
	:: d_step { G.pc == 0 && (garbage(0) || garbage(1)) ->
		G.fresh = 1; G.all = pins; G.p = pins; G.m = marks; G.bare = pins & unleased; G.pc = first }
	:: d_step { G.pc == PodThere ->
		G.uid = pod[0].uid; G.far = ((leasedFar(0) -> 1 : 0) | (leasedFar(1) -> 2 : 0));
		G.pc = (first == PodThere -> Wanted : Judge) }
	:: d_step { G.pc == Wanted ->
		G.wanted = wanted; G.addr = None;
		G.pc = (wanted -> Pointer : afterPointer) }
	:: d_step { G.pc == Pointer -> G.addr = epAddr; G.epUID = epUID; G.pc = afterPointer }
	:: d_step { G.pc == Judge ->
		judge(x);
		G.wanted = 0; G.addr = 0; G.uid = 0; G.epUID = 0; G.far = 0;
		if
		:: !G.again && (G.out & ~G.m) -> G.pc = Mark; G.out = G.out & ~G.m
		:: (G.again || !(G.out & ~G.m)) && G.m -> G.pc = Put
		:: else -> rest(x)
		fi }
	:: d_step { G.pc == Mark && judgedNow ->
#ifdef BUG_ONE_STEP
		printf("gc    pins %d are removed\n", G.out);
		pins = pins & ~G.out; marks = marks & ~G.out; blockMoved(); rest(x) }
#else
		printf("gc    pins %d are marked\n", G.out);
		marks = marks | G.out; blockMoved();
		G.fresh = 1; G.m = marks; G.p = marks; G.again = 1;
#ifdef BUG_ONE_LOOK
		G.pc = Put }
#else
		G.out = 0; G.pc = first }
#endif
	:: d_step { G.pc == Mark && judgedNow && canLose ->
		printf("gc    pins %d are marked: no answer\n", G.out);
		fromBlock(); tm = tm | G.out; loseBlock(); rest(x) }
#endif
	:: d_step { G.pc == Put && judgedNow ->
		printf("gc    of pins %d marked, %d are removed\n", G.m, G.out & G.m);
		pins = pins & ~(G.out & G.m); marks = marks & ~G.m; blockMoved(); rest(x) }
	:: d_step { G.pc == Put && judgedNow && canLose ->
		printf("gc    of pins %d marked, %d are removed: no answer\n", G.m, G.out & G.m);
		fromBlock(); tp = tp & ~(G.out & G.m); tm = tm & ~G.m; loseBlock(); rest(x) }
	:: d_step { (G.pc == Mark || G.pc == Put) && !judgedNow -> rest(x) }
	:: d_step { G.pc != 0 && (canFail || COLLECTORS > 1) -> rest(x) }	/* paused, dead, or an error of a read */
	od
}

/* and pointers without their pin */
proctype CollectPointer() {
	do
	:: d_step { ppc == 0 && epAddr != None && !has(pins, epAddr) -> pgFresh = 1; ppc = PodThere }
	:: d_step { ppc == PodThere -> if :: pod[0].uid != 0 -> ppc = 0; pgFresh = 0 :: else -> ppc = Put fi }
	:: d_step { ppc == Put && pgFresh ->
		printf("gc    the endpoint is deleted\n");
		epAddr = None; epUID = 0; ppc = 0; pointerMoved() }
	:: d_step { ppc == Put && pgFresh && canLose ->
		printf("gc    the endpoint is deleted: no answer\n");
		losePointer(PointerDelete, 0, 0); ppc = 0; pgFresh = 0 }
	:: d_step { ppc == Put && !pgFresh -> ppc = 0 }
	od
}

/* ---- the world: controllers, kubelets, the runtime, faults ---- */
#define K	pod[q]
#define recalls(n, a, u)	((node[n].st[a] == Assigned || node[n].st[a] == Retained) && node[n].uid[a] == u && leased(n, a))
#define recalled(n, u)	(recalls(n, 0, u) || recalls(n, 1, u))
#define nextID	(K.used == 1 && RESTARTS + DELS + GIVEUPS > 0 -> 2 : 1)
#if DELS
#define delWaits(u, c)	(del[0].uid == (u) && del[0].cont == (c))
#else
#define delWaits(u, c)	false
#endif

inline gone(q) {
	if
	:: q == 0 ->
		outrun = 0;
		for (i : 0 .. NODES - 1) {
			if :: node[i].pUID == K.uid -> forget(i) :: else fi
		}
		i = 0
	:: else
	fi;
	K.uid = 0; K.node = 0; K.live = 0; K.addr = 0; K.cont = 0; K.adding = 0; K.used = 0; K.prepared = 0
}

proctype Kubelet(byte q) {
	do
	:: atomic { K.uid == 0 && (q == 0 -> wanted && sUsed < SPODS : tUsed < TPODS) ->
		if
		:: K.node = 0
		:: !(q == 0 && sUsed == 0) -> K.node = 1	/* nodes are alike, so the first may be any */
#if NODES > 2
		:: !(q == 0 && sUsed <= 1) -> K.node = 2
#endif
		fi;
		d_step {
		if
		:: q == 0 -> sUsed++; K.uid = sUsed
		:: else -> tUsed++; K.uid = SPODS + tUsed
		fi;
		printf("      pod uid %d (%d) is bound to n%d\n", K.uid, q, K.node) } }
	:: d_step { K.uid != 0 && !K.live && K.adding == 0 && (ready(K.node) || recalled(K.node, K.uid)) && node[K.node].call[q].pc == 0 && !delWaits(K.uid, nextID) ->
		K.used = nextID; K.adding = K.used; K.prepared = 1;
		printf("n%d    ADD uid %d c%d\n", K.node, K.uid, K.adding);
		node[K.node].call[q].uid = K.uid; node[K.node].call[q].cont = K.adding; node[K.node].call[q].pc = Begin }
#ifdef PREPARE
	:: d_step { q == 0 && K.uid != 0 && !K.prepared && ready(K.node) && node[K.node].call[q].pc == 0 ->
		K.prepared = 1;
		printf("n%d    prepare uid %d\n", K.node, K.uid);
		node[K.node].call[q].uid = K.uid; node[K.node].call[q].pc = Begin }
#endif
#if GIVEUPS
	:: d_step { K.adding != 0 && giveups < GIVEUPS ->
		giveups++;
		printf("n%d    uid %d c%d: the runtime gives up waiting\n", K.node, K.uid, K.adding);
		delLater(K.uid, K.node, K.adding);
		K.adding = 0 }
#endif
	:: d_step { K.live && restarts < RESTARTS ->
		restarts++;
		printf("n%d    uid %d c%d: sandbox ends, DEL\n", K.node, K.uid, K.cont);
		K.live = 0; sentDel(K.node, K.uid, K.cont); K.cont = 0; K.addr = 0 }
	:: d_step { K.live ->
		printf("n%d    uid %d c%d: sandbox ends, DEL, the pod is gone\n", K.node, K.uid, K.cont);
		K.live = 0; sentDel(K.node, K.uid, K.cont); gone(q) }
#if DELS
	:: d_step { K.live && restarts < RESTARTS && del[0].uid == 0 ->
		restarts++;
		printf("n%d    uid %d c%d: sandbox ends, DEL later\n", K.node, K.uid, K.cont);
		del[0].uid = K.uid; del[0].node = K.node; del[0].cont = K.cont;
		K.live = 0; K.cont = 0; K.addr = 0 }
	:: d_step { K.live && del[0].uid == 0 ->
		printf("n%d    uid %d c%d: sandbox ends, DEL later, the pod is gone\n", K.node, K.uid, K.cont);
		del[0].uid = K.uid; del[0].node = K.node; del[0].cont = K.cont;
		gone(q) }
#endif
	:: d_step { K.uid != 0 && !K.live && K.adding == 0 ->
		printf("      pod uid %d is gone\n", K.uid);
		gone(q) }
	od
}

#if GIVEUPS
/* An ADD that the runtime does not wait for is served late, after later ones. */
proctype LateAdds(byte q) {
	byte u, n, c;
	do
	:: d_step { u == 0 && node[0].call[q].pc == Begin && pod[q].adding != node[0].call[q].cont ->
		u = node[0].call[q].uid; n = 0; c = node[0].call[q].cont; over(0, q) }
	:: d_step { u == 0 && node[1].call[q].pc == Begin && pod[q].adding != node[1].call[q].cont ->
		u = node[1].call[q].uid; n = 1; c = node[1].call[q].cont; over(1, q) }
	:: d_step { u != 0 && node[n].call[q].pc == 0 ->
		printf("n%d    ADD uid %d c%d comes late\n", n, u, c);
		node[n].call[q].uid = u; node[n].call[q].cont = c; node[n].call[q].pc = Begin;
		u = 0; n = 0; c = 0 }
	od
}
#endif

#if DELS
proctype Runtime() {
	do
	:: d_step { del[0].uid != 0 ->
		printf("n%d    uid %d c%d: DEL\n", del[0].node, del[0].uid, del[0].cont);
		sentDel(del[0].node, del[0].uid, del[0].cont) }	/* and perhaps once more */
	:: d_step { del[0].uid != 0 -> del[0].uid = 0; del[0].node = 0; del[0].cont = 0 }
	od
}
#endif

proctype Scale() {
	do
	:: d_step { scales < SCALES ->
		scales++; wanted = !wanted;
		printf("      the StatefulSet is scaled to %d\n", wanted);
		home = (wanted && pod[0].live -> pod[0].addr : None) }
	od
}

inline crash(n) {		/* memory is lost; the journal and the leases are read anew */
	for (i : 0 .. QUEUE - 1) { over(n, i) }
	node[n].cpc = 0; node[n].batch = 0; node[n].give = 0; node[n].cfresh = 0; node[n].yieldLast = 0;
	node[n].busy = 0; forget(n);
#ifdef WRITER
	wrote(n, 1);
#endif
	for (i : 0 .. PODS - 1) {
		if
		:: pod[i].adding != 0 && pod[i].node == n -> delLater(pod[i].uid, n, pod[i].adding); pod[i].adding = 0
		:: else
		fi
	}
	i = 0;
#ifdef BUG_EMPTY_LIST
	for (i : 0 .. ADDRS - 1) {	/* no pod is listed yet, so none is there */
		if :: givable(n, i) -> releaseOne(n, i) :: else fi
	}
	i = 0;
#endif
#ifdef BUG_NOT_LOADED
	drop(n, 0); drop(n, 1);
#endif
#ifdef BUG_ANSWER_FIRST
	if :: has(node[n].unsynced, 0) -> drop(n, 0) :: else fi;
	if :: has(node[n].unsynced, 1) -> drop(n, 1) :: else fi;
	node[n].unsynced = 0;
#endif
#ifdef BUG_YIELD_UNSYNCED
	if :: node[n].st[0] == Yielding -> drop(n, 0) :: else fi;
	if :: node[n].st[1] == Yielding -> drop(n, 1) :: else fi;
#endif
	see(n)
}

#if CRASHES
proctype Crash(byte n) {
	do
	:: d_step { crashes < CRASHES ->
		crashes++;
		printf("n%d    the agent starts anew\n", n);
		crash(n) }
	od
}
#endif

#ifdef FENCE
/*
 * Node 0 is shut down and tainted as out of service: its sandboxes are no
 * more, and its pods are there until somebody deletes them. It starts again
 * with its disk. As long as the taint is there, only what the journal knows
 * is answered. When it is gone, the agent writes the block in which it
 * leases, and by that ends any update under way that would end its lease.
 */
proctype Taint() {
	do
	:: d_step { !outs ->
		printf("      n0 is shut down, out of service\n");
		outs = 1; out = 1; trusts = 0;
		crash(0);
		for (k : 0 .. PODS - 1) {
			if :: pod[k].node == 0 -> pod[k].live = 0; pod[k].addr = 0; pod[k].cont = 0 :: else fi
		}
		k = 0 }
	:: d_step { out ->
		printf("      the taint of n0 is taken off\n");
		out = 0 }
#ifdef BUG_TRUST_BY_MEMORY
	:: d_step { outs && !out && !trusts ->
		printf("n0    the node is in order: new assignments\n");
		trusts = 1 }
#else
	:: d_step { outs && !out && !trusts && hpc == 0 ->
		printf("n0    the node is in order\n");
		hFresh = leasing0; hpc = (leasing0 -> Put : ReadBlock) }
#ifdef BUG_TRUST_BY_READ
	:: d_step { hpc == Put -> hpc = ReadBlock; hFresh = 0 }
#else
	:: d_step { hpc == Put && hFresh ->
		printf("n0    the block is written as it is: new assignments\n");
		blockMoved(); see(0); trusts = 1; hpc = 0 }
	:: d_step { hpc == Put && hFresh && canLose ->
		printf("n0    the block is written as it is: no answer\n");
		fromBlock(); loseBlock(); hpc = 0; hFresh = 0 }
	:: d_step { hpc == Put && !hFresh -> hpc = ReadBlock }	/* somebody's write has done the same */
#endif
	:: d_step { hpc == ReadBlock ->
		printf("n0    new assignments\n");
		see(0); trusts = 1; hpc = 0 }
#endif
	od
}

/* and the elected agent ends its leases: the block, the Node, its pods */
proctype Fence() {
	do
#ifdef BUG_FENCE_LOOKS_FIRST
	:: d_step { fpc == 0 && out && leasing0 -> fpc = Bound }
	:: d_step { fpc == Bound -> fpc = (bound(0) -> 0 : ReadBlock) }
	:: d_step { fpc == ReadBlock -> fFresh = leasing0; fpc = (leasing0 -> Put : 0) }
#else
	:: d_step { fpc == 0 && out && leasing0 -> fFresh = 1; fpc = Gone }
	:: d_step { fpc == Gone -> fpc = (out -> Bound : 0); fFresh = fFresh && out }
#ifdef BUG_FENCE_WITH_PODS
	:: d_step { fpc == Bound -> fpc = Put }
#else
	:: d_step { fpc == Bound -> fFresh = fFresh && !bound(0); fpc = (bound(0) -> 0 : Put) }
#endif
#endif
	:: d_step { fpc == Put && fFresh ->
		printf("gc    the leases of n0 are ended\n");
		fromBlock(); endLeases(); toBlock(); fpc = 0 }
	:: d_step { fpc == Put && fFresh && canLose ->
		printf("gc    the leases of n0 are ended: no answer\n");
		fromBlock(); endLeases(); loseBlock(); fpc = 0; fFresh = 0 }
	:: d_step { fpc == Put && !fFresh -> fpc = 0 }
	od
}
#endif

/* Nothing is left to do: no address is lost. */
proctype Quiet() {
	timeout ->
	printf("      quiet\n");
	assert(pins == 0 && epAddr == None);
	for (i : 0 .. NODES - 1) { assert(node[i].st[0] == 0 && node[i].st[1] == 0 && node[i].busy == 0) }
}

init {
	atomic {
	for (k : 0 .. NODES - 1) {
		run Place(k); run Commit(k); 
#ifdef LAG
		run Watch(k);
#endif
#ifdef WRITER
		run Writer(k);
#endif
		
		run Upkeep(k, 0); run Upkeep(k, 1);
		for (j : 1 .. TSLOTS) { run Pick(k, j) }
#if CRASHES
		run Crash(k);
#ifdef BUG_ANSWER_FIRST
		run Sync(k);
#endif
#endif
	}
	for (k : 0 .. TSLOTS) { run Kubelet(k) }
	for (k : 1 .. COLLECTORS) { run Collect(k - 1) }
#if LOSSES
	for (k : 1 .. LOSSES) { run Landing(k - 1) }
#endif
#if DELS
	run Runtime();
#endif
#if GIVEUPS
	for (k : 0 .. TSLOTS) { run LateAdds(k) }
#endif
	run CollectPointer();
#ifdef FENCE
	run Taint(); run Fence();
#endif
	run Scale(); run Quiet();
	k = 0; j = 0
	}
}
