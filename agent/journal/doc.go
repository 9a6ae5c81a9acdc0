// Package journal keeps a node's [lease.Entry] records in a bbolt file, the
// real [lease.Disk].
//
// The file has two buckets. "entries" has one record per address: the key is
// the address in 4 or 16 bytes (netip.Addr.MarshalBinary), the value the
// entry as JSON. "meta" has the format of the records, the UID of the node
// they belong to, and a tally of the records, kept in step by each write.
//
// bbolt writes a transaction with its checksum and syncs it before it
// answers, so what was answered outlives the process and the machine, and
// half a transaction is never seen. What it does not guard against is a disk
// that lies about syncing, or bits that rot. So [Open] reads the file in full,
// compares it with its tally, and goes on with a new file of the same entries;
// one that does not hold what it should is set aside. One thing goes unnoticed:
// when the newer of the two root pages rots, bbolt takes the older for the
// last that was written in full, and the last write is gone.
package journal
