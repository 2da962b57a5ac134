{{/* Who calls whom: the code's graph (CALLS in tests/architecture.rs). `make chart-test` compares the rendered policies with it. */}}
{{- define "tidemill.calls" -}}
evaluation: [registry]
gateway: [evaluation, inference, ingestion, pipeline, preprocessing, registry, training]
inference: [registry]
ingestion: [registry]
pipeline: [evaluation, inference, ingestion, preprocessing, registry, training]
preprocessing: [registry]
registry: []
training: [registry]
{{- end }}

{{/* Something outside of the release: ports and peers as the values give them. */}}
{{- define "tidemill.egress" -}}
- ports:
    {{- range .edge.ports }}
    - {port: {{ . }}, protocol: {{ $.protocol | default "TCP" }}}
    {{- end }}
  {{- with .edge.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* DNS, which all pods ask. */}}
{{- define "tidemill.egressDns" -}}
{{- $dns := .root.Values.networkPolicy.dns -}}
- ports:
    {{- range $dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with $dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/*
What one service may do on the network; everything else is denied. In: its callers, clients, metrics. Out: whom it calls, DNS, the four
stores, telemetry, and the API server if it starts workers. Context: that of the pod.
*/}}
{{- define "tidemill.networkPolicy" -}}
{{- $policy := .root.Values.networkPolicy }}
{{- $root := .root }}
{{- $name := .name }}
{{- $calls := include "tidemill.calls" . | fromYaml }}
{{- if $policy.enabled -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tidemill.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{port: 7460, protocol: TCP}]
      from:
        {{- range $caller, $callees := $calls }}
        {{- if has $name $callees }}
        {{- include "tidemill.peer" (dict "root" $root "name" $caller) | nindent 8 }}
        {{- end }}
        {{- end }}
        {{- include "tidemill.peer" (dict "root" $root "name" "test") | nindent 8 }}
        {{- with $policy.clients.from }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- if .http }}
    - ports: [{port: 7461, protocol: TCP}]
      {{- with $policy.http.from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    - ports: [{port: 9464, protocol: TCP}]
      {{- with $policy.prometheus.from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  egress:
    {{- include "tidemill.egressDns" . | nindent 4 }}
    {{- range index $calls .name }}
    - ports: [{port: 7460, protocol: TCP}]
      to:
        {{- include "tidemill.peer" (dict "root" $root "name" .) | nindent 8 }}
    {{- end }}
    {{- if not .alone }}
    {{- range list "kafka" "redis" "postgres" "s3" }}
    {{- include "tidemill.egress" (dict "edge" (index $policy .)) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- if $root.Values.config.telemetry.otlp_endpoint }}
    {{- include "tidemill.egress" (dict "edge" $policy.otlp) | nindent 4 }}
    {{- end }}
    {{- if .launcher }}
    {{- include "tidemill.egress" (dict "edge" $policy.kubeApi) | nindent 4 }}
    {{- end }}
    {{- with .values.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "tidemill.peer" -}}
- podSelector:
    matchLabels:
      {{- include "tidemill.selector" . | nindent 6 }}
{{- end }}
