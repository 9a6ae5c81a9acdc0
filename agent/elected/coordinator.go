package elected

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	// surveyPeriod is, if [Config.Survey] says nothing else, how often the cluster's networks are looked up anew. They
	// hardly ever change, and one look costs a handful of reads (a dozen in the
	// worst case), however many SpiderCoordinators there are; without one it costs
	// none.
	surveyPeriod = time.Minute
	// surveyPatience is for how long a failing read is only tried again. After
	// that the status says what fails: what it said before may be wrong by then.
	surveyPatience = time.Minute
)

// The jobs of the duty.
const (
	jobLook  = "look anew"
	jobWrite = "write"
)

// coordinators keeps the status of SpiderCoordinators.
type coordinators struct {
	client   *crds.Coordinators
	informer watch.Informer[*v2beta1.SpiderCoordinator]
	sources  sources
	queue    queue[string]
	log      *slog.Logger

	// One job is done at a time, so these need no lock. survey is what has been
	// looked up since the last look; failing is since when reads fail.
	survey  *survey
	failing time.Time
}

// keepCoordinators is the duty of finding out the networks of the cluster's
// pods and services, for the coordinator plugin on every node.
func (d *Duties) keepCoordinators(ctx context.Context, _ *watches, log *slog.Logger) {
	c := &coordinators{
		client:   d.config.CRDs.Coordinators(),
		informer: newCache(d.config.CRDs.Coordinators(), &v2beta1.SpiderCoordinator{}, nil),
		sources:  sources{kube: d.config.Kubernetes, ciliumConfig: cmp.Or(d.config.CiliumConfigMap, defaultCiliumConfig)},
		queue:    newQueue[string]("coordinators"),
		log:      log,
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.informer.RunWithContext(ctx) })
	if !watch.Synced(ctx, c.informer) {
		return
	}
	err := c.informer.On(
		func(_, _ *v2beta1.SpiderCoordinator) { c.queue.Add(jobWrite) },
		func(*v2beta1.SpiderCoordinator) {})
	if err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	wg.Go(func() { c.lookNowAndThen(ctx, cmp.Or(d.config.Survey, surveyPeriod)) })
	c.queue.work(ctx, 1, log, c.do)
}

func (c *coordinators) lookNowAndThen(ctx context.Context, period time.Duration) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.queue.Add(jobLook)
		}
	}
}

// do brings the status of all SpiderCoordinators in line with the cluster.
func (c *coordinators) do(ctx context.Context, job string) (again bool, err error) {
	if job == jobLook || c.survey == nil {
		c.survey = newSurvey(c.sources)
	}
	var failed []error
	for _, sc := range c.informer.All() {
		if sc.DeletionTimestamp != nil {
			failed = append(failed, c.letGo(ctx, sc))
			continue
		}
		status, err := c.judge(ctx, sc)
		if err == nil {
			err = c.write(ctx, sc, status)
		}
		failed = append(failed, err)
	}
	c.forgive()
	err = errors.Join(failed...)
	return err != nil, err
}

// judge returns what the status has to be, or an error while it is too early to
// say that it cannot be found out.
func (c *coordinators) judge(ctx context.Context, sc *v2beta1.SpiderCoordinator) (v2beta1.CoordinatorStatus, error) {
	pods, services, err := c.survey.networks(ctx, sc.Spec.PodCIDRType)
	var unfound *unfoundError
	switch {
	case err == nil:
		return v2beta1.CoordinatorStatus{
			Phase: v2beta1.CoordinatorSynced, OverlayPodCIDR: textsOf(pods), ServiceCIDR: textsOf(services),
		}, nil
	case errors.As(err, &unfound):
		return v2beta1.CoordinatorStatus{Phase: v2beta1.CoordinatorNotReady, Reason: unfound.reason}, nil
	}
	if c.failing.IsZero() {
		c.failing = time.Now()
	}
	if time.Since(c.failing) < surveyPatience {
		return v2beta1.CoordinatorStatus{}, fmt.Errorf("find out the networks for SpiderCoordinator %s: %w", sc.Name, err)
	}
	return v2beta1.CoordinatorStatus{
		Phase: v2beta1.CoordinatorNotReady, Reason: fmt.Sprintf("the API server does not tell: %s", err),
	}, nil
}

// forgive forgets that reads have failed, once one pass has gone without.
func (c *coordinators) forgive() {
	if !c.survey.failed {
		c.failing = time.Time{}
	}
	c.survey.failed = false
}

func (c *coordinators) write(ctx context.Context, sc *v2beta1.SpiderCoordinator, status v2beta1.CoordinatorStatus) error {
	if equality.Semantic.DeepEqual(sc.Status, status) {
		return nil
	}
	next := sc.DeepCopy()
	next.Status = status
	if _, err := c.client.UpdateStatus(ctx, next, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the status of SpiderCoordinator %s: %w", sc.Name, guarded(err))
	}
	c.log.Info("status written", "coordinator", sc.Name, "phase", status.Phase, "reason", status.Reason)
	return nil
}

// letGo takes Spiderpool's finalizer off a SpiderCoordinator that is deleted.
// Spiderpool put one on each and had nothing that removes it; this project puts
// none there, because nothing has to be done before one goes.
func (c *coordinators) letGo(ctx context.Context, sc *v2beta1.SpiderCoordinator) error {
	if !slices.Contains(sc.Finalizers, v2beta1.Finalizer) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(sc.Finalizers), func(f string) bool { return f == v2beta1.Finalizer })
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": sc.ResourceVersion, "finalizers": left}})
	if err == nil {
		_, err = c.client.Patch(ctx, sc.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err = guarded(err); err != nil && !errors.Is(err, lease.ErrConflict) {
		return fmt.Errorf("let SpiderCoordinator %s go: %w", sc.Name, err)
	}
	return nil // somebody else was faster, and the watch will tell
}

func textsOf(networks []netip.Prefix) []string {
	var texts []string
	for _, n := range networks {
		texts = append(texts, n.String())
	}
	return texts
}
