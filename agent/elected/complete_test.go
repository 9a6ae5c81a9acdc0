package elected_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// poolIs waits until a pool's spec and generation are these.
func (s *server) poolIs(t *testing.T, name string, generation int64, want v2beta1.IPPoolSpec) {
	t.Helper()
	eventually(t, func() string {
		p, err := s.kinds.IPPools().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if diff := cmp.Diff(want, p.Spec); diff != "" || p.Generation != generation {
			return fmt.Sprintf("pool %s is at generation %d, want %d (-want +got):\n%s", name, p.Generation, generation, diff)
		}
		return ""
	})
}

func (s *server) reservation(t *testing.T, name string, generation int64, want v2beta1.ReservedIPSpec) {
	t.Helper()
	eventually(t, func() string {
		r, err := s.kinds.ReservedIPs().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if diff := cmp.Diff(want, r.Spec); diff != "" || r.Generation != generation {
			return fmt.Sprintf("reservation %s is at generation %d, want %d (-want +got):\n%s", name, r.Generation, generation, diff)
		}
		return ""
	})
}

// slippedThrough has objects applied that no webhook saw: each write shows in
// the generation.
func slippedThrough(t *testing.T, s *server) {
	four, six := int64(4), int64(6)
	s.pool(t, "unsorted", v2beta1.IPPoolSpec{Subnet: "10.14.0.0/16", IPs: []string{"10.14.0.9", "10.14.0.1-10.14.0.5", "10.14.0.3-10.14.0.8"}, ExcludeIPs: []string{"10.14.0.5", "10.14.0.4"}})
	want := v2beta1.IPPoolSpec{IPVersion: &four, Subnet: "10.14.0.0/16", IPs: []string{"10.14.0.1-10.14.0.9"}, ExcludeIPs: []string{"10.14.0.4-10.14.0.5"}}
	s.poolIs(t, "unsorted", 2, want)
	s.poolSays(t, "unsorted", 7, 0, "")

	r := &v2beta1.SpiderReservedIP{ObjectMeta: metav1.ObjectMeta{Name: "unsorted"}, Spec: v2beta1.ReservedIPSpec{IPs: []string{"fd14::2", "fd14::1"}}}
	must[*v2beta1.SpiderReservedIP](t)(s.kinds.ReservedIPs().Create(t.Context(), r, metav1.CreateOptions{}))
	reserved := v2beta1.ReservedIPSpec{IPVersion: &six, IPs: []string{"fd14::1-fd14::2"}}
	s.reservation(t, "unsorted", 2, reserved)

	// An update that brings nothing to fill in is the last write.
	patch := []byte(`{"spec":{"disable":true}}`)
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "unsorted", types.MergePatchType, patch, metav1.PatchOptions{}))
	want.Disable = true
	patch = []byte(`{"spec":{"ips":["10.14.0.1-10.14.0.10"]}}`)
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "unsorted", types.MergePatchType, patch, metav1.PatchOptions{}))
	want.IPs = v2beta1.Ranges{"10.14.0.1-10.14.0.10"}
	s.poolSays(t, "unsorted", 8, 0, "")
	s.poolIs(t, "unsorted", 4, want)

	patch = []byte(`{"spec":{"ips":["fd14::9","fd14::1"]}}`)
	must[*v2beta1.SpiderReservedIP](t)(s.kinds.ReservedIPs().Patch(t.Context(), "unsorted", types.MergePatchType, patch, metav1.PatchOptions{}))
	reserved.IPs = v2beta1.Ranges{"fd14::1", "fd14::9"}
	s.reservation(t, "unsorted", 4, reserved)
}

// serverSideApplied has a pool applied again and again by somebody who owns
// its fields: that must not become a conflict.
func serverSideApplied(t *testing.T, s *server) {
	manifest := []byte(`{"apiVersion":"spiderpool.spidernet.io/v2beta1","kind":"SpiderIPPool","metadata":{"name":"applied"},
		"spec":{"subnet":"10.15.0.0/16","ips":["10.15.0.9","10.15.0.1"]}}`)
	apply := func() {
		t.Helper()
		must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "applied", types.ApplyPatchType, manifest, metav1.PatchOptions{FieldManager: "somebody"}))
	}
	four := int64(4)
	want := v2beta1.IPPoolSpec{IPVersion: &four, Subnet: "10.15.0.0/16", IPs: []string{"10.15.0.9", "10.15.0.1"}}
	apply()
	s.poolIs(t, "applied", 2, want)
	s.poolSays(t, "applied", 2, 0, "")
	apply()
	s.poolIs(t, "applied", 2, want)

	// What else the pool lacks is filled in all the same.
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	must[*v2beta1.SpiderIPPool](t)(s.kinds.IPPools().Patch(t.Context(), "applied", types.MergePatchType, patch, metav1.PatchOptions{}))
	eventually(t, func() string {
		p, err := s.kinds.IPPools().Get(t.Context(), "applied", metav1.GetOptions{})
		if err != nil || !slices.Contains(p.Finalizers, v2beta1.Finalizer) {
			return fmt.Sprintf("the pool has the finalizers %v, %v", p.Finalizers, err)
		}
		return ""
	})
	s.poolIs(t, "applied", 2, want)
}

// sealedPool has a pool that a policy of the cluster lets nobody change.
func sealedPool(t *testing.T, s *server) {
	policies := s.kube.AdmissionregistrationV1()
	rule := admissionregistrationv1.Rule{APIGroups: []string{v2beta1.GroupVersion().Group}, APIVersions: []string{"*"}, Resources: []string{"spiderippools"}}
	must[*admissionregistrationv1.ValidatingAdmissionPolicy](t)(policies.ValidatingAdmissionPolicies().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "sealed"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				ResourceNames: []string{"sealed", "probe"},
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update}, Rule: rule,
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "false", Message: "sealed"}},
		},
	}, metav1.CreateOptions{}))
	must[*admissionregistrationv1.ValidatingAdmissionPolicyBinding](t)(policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "sealed"},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "sealed", ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}, metav1.CreateOptions{}))
	s.pool(t, "probe", v2beta1.IPPoolSpec{Subnet: "10.16.0.0/16"})
	patch := []byte(`{"spec":{"disable":true}}`)
	eventually(t, func() string {
		_, err := s.kinds.IPPools().Patch(t.Context(), "probe", types.MergePatchType, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsInvalid(err) {
			return fmt.Sprintf("the policy is not in force: %v", err)
		}
		return ""
	})
	spec := v2beta1.IPPoolSpec{Subnet: "10.17.0.0/16", IPs: []string{"10.17.0.9", "10.17.0.1"}}
	s.pool(t, "sealed", spec)
	s.poolSays(t, "sealed", 2, 0, "")
	s.poolIs(t, "sealed", 1, spec)
}
