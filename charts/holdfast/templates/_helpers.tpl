{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/component: agent
{{- end }}

{{- define "holdfast.multusSelector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/component: multus
{{- end }}

{{- define "holdfast.labels" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* Root, to write to directories of root's on the node, and nothing more. */ -}}
{{- define "holdfast.securityContext" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- /* The configuration list of `cni`, as JSON. */ -}}
{{- define "holdfast.conflist" -}}
{{- $ipam := dict "type" "spiderpool" -}}
{{- with .Values.cni.defaultIPv4IPPool }}{{ $_ := set $ipam "default_ipv4_ippool" . }}{{ end -}}
{{- with .Values.cni.defaultIPv6IPPool }}{{ $_ := set $ipam "default_ipv6_ippool" . }}{{ end -}}
{{- if ne .Values.global.ipamUNIXSocketHostPath "/var/run/spidernet/spiderpool.sock" }}{{ $_ := set $ipam "ipam_unix_socket_path" .Values.global.ipamUNIXSocketHostPath }}{{ end -}}
{{- $main := dict "type" .Values.cni.type "ipam" $ipam -}}
{{- with .Values.cni.mtu }}{{ $_ := set $main "mtu" (int .) }}{{ end -}}
{{- if eq .Values.cni.type "macvlan" -}}
{{- $_ := set $main "mode" .Values.cni.mode -}}
{{- $_ := set $main "master" (required "cni.type=macvlan needs cni.master: the name of the nodes' interface" .Values.cni.master) -}}
{{- else -}}
{{- $_ := set $main "ipMasq" .Values.cni.ipMasq -}}
{{- end -}}
{{- $plugins := list $main -}}
{{- if and .Values.cni.coordinator (ne .Values.cni.type "ptp") -}}
{{- $coordinator := dict "type" "coordinator" -}}
{{- with $ipam.ipam_unix_socket_path }}{{ $_ := set $coordinator "ipam_unix_socket_path" . }}{{ end -}}
{{- $plugins = append $plugins $coordinator -}}
{{- end -}}
{{- $plugins = concat $plugins .Values.cni.extraPlugins -}}
{{- dict "cniVersion" .Values.cni.cniVersion "name" .Values.cni.name "plugins" $plugins | toPrettyJson -}}
{{- end }}

{{- /* Not empty when the list of `cni` is what the runtime reads. */ -}}
{{- define "holdfast.ownConf" -}}
{{- if and .Values.cni.install (not .Values.multus.multusCNI.install) }}true{{ end -}}
{{- end }}

{{- /* Where Multus finds its default network: our list, or the node's. */ -}}
{{- define "holdfast.multusDelegates" -}}
{{- if .Values.multus.multusCNI.defaultCniCRName -}}named
{{- else if .Values.cni.install -}}ours
{{- else -}}node
{{- end -}}
{{- end }}

{{- /* Namespace and name of Cilium's ConfigMap. */ -}}
{{- define "holdfast.ciliumConfigMap" -}}
{{- .Values.global.ciliumConfigMap | default "kube-system/cilium-config" -}}
{{- end }}
