{{/*
The ports of a Service. Those that services call are headless: one HTTP/2 connection through a cluster address would stay with one pod,
so callers see the pods and balance over them. Context: that of the pod.
*/}}
{{- define "tidemill.ports" -}}
- {name: grpc, port: 7460, targetPort: grpc, appProtocol: {{ ternary "https" "kubernetes.io/h2c" (not (empty .root.Values.secrets.tls)) }}}
{{- if .http }}
- {name: http, port: 7461, targetPort: http}
{{- end }}
- {name: metrics, port: 9464, targetPort: metrics}
{{- end }}

{{/* Replicas, selector and roll-out of a Deployment: a new pod serves before an old one leaves. */}}
{{- define "tidemill.rollout" -}}
{{- if not .values.autoscaling.enabled -}}
replicas: {{ .values.replicas }}
{{ end -}}
revisionHistoryLimit: 3
strategy:
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
selector:
  matchLabels:
    {{- include "tidemill.selector" . | nindent 4 }}
{{- end }}

{{/* At most one pod of several is away; a single one can always be moved. */}}
{{- define "tidemill.disruption" -}}
{{- if gt (int (ternary .values.autoscaling.min .values.replicas .values.autoscaling.enabled)) 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tidemill.selector" . | nindent 6 }}
{{- end }}
{{- end }}
