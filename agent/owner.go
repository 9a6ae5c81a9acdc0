package agent

import (
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/elected"
)

// ownedByStatefulSet reports whether the pod's controller is a StatefulSet of
// apps/v1. Other kinds of that name make no promise about pod names.
func ownedByStatefulSet(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "StatefulSet" && owner.APIVersion == appsv1.SchemeGroupVersion.String()
}

// bearing is which identity a pod bears, if any.
type bearing struct {
	// name is that of the identity and of the endpoint, and kind what name
	// names if that is not the pod ([lease.Identity]).
	name, kind string
	// pod is the pod's own name where kind is set.
	pod string
	// sticky is set when addresses are held for the identity.
	sticky bool
}

// bearing returns which identity the pod bears.
func (a *Agent) bearing(pod *corev1.Pod) bearing {
	if machine, ok := elected.MachineOf(pod); ok && a.config.EnableKubevirtStaticIP {
		return bearing{name: machine, kind: elected.KindMachine, pod: pod.Name, sticky: true}
	}
	return bearing{name: pod.Name, sticky: a.config.EnableStatefulSet && ownedByStatefulSet(pod)}
}

// topOwner returns kind and name of what people call the pod's application.
// A Deployment is told from its ReplicaSet's name, which is the Deployment's
// and the pod template's hash, and a CronJob from its Job's: that needs no look-up.
func topOwner(pod *corev1.Pod) (kind, name string) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return "Pod", pod.Name
	}
	hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if deployment, ok := strings.CutSuffix(owner.Name, "-"+hash); ok && owner.Kind == "ReplicaSet" && hash != "" {
		return "Deployment", deployment
	}
	if owner.Kind == "Job" {
		if cronJob, ok := cronJobOf(owner.Name, pod.CreationTimestamp.Time); ok {
			return "CronJob", cronJob
		}
	}
	return owner.Kind, owner.Name
}

// latestStart is for how long after its time a CronJob's pod may begin here
// and still be told as one's.
const latestStart = 7 * 24 * time.Hour

// cronJobOf returns the CronJob that a Job is of by its name, which is the
// CronJob's and the minute that it was due, since 1970 (getJobName, package
// cronjob of kube-controller-manager). A number that is not that of a time
// right before the pod was made is part of somebody's own name.
func cronJobOf(job string, created time.Time) (cronJob string, ok bool) {
	i := strings.LastIndexByte(job, '-')
	if i < 1 {
		return "", false
	}
	minutes, err := strconv.ParseInt(job[i+1:], 10, 64)
	if err != nil || minutes < 0 || minutes > created.Unix()/60+1 {
		return "", false
	}
	return job[:i], created.Sub(time.Unix(minutes*60, 0)) < latestStart
}
