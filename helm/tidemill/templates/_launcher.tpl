{{/* What a service may do at the API server to start, watch, stop and reap its workers; nothing wider. Context: that of the pod. */}}
{{- define "tidemill.launcherRole" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
rules:
  - {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, watch, delete, patch]}
  # `patch`: a worker is asked to leave by a deadline on its pod, which leaves its exit code and output; a deletion would not.
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch, delete, patch]}
  - {apiGroups: [""], resources: [pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "tidemill.name" . }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "tidemill.name" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
