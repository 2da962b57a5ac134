{{/*
How many replicas a service gets, if autoscaling is on for it. With KEDA: by the lag of its task topic (`lag` records a replica), or by
a query (`query`, `threshold`). Else, and where nothing waits in a queue, an HPA: on a pod metric if given, or on CPU. Context: that of the pod.
*/}}
{{- define "tidemill.scaler" -}}
{{- $root := .root }}
{{- $scaling := .values.autoscaling }}
{{- if $scaling.enabled -}}
{{- if and $root.Values.keda.enabled (or .lag .query) -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {name: {{ include "tidemill.name" . }}}
  minReplicaCount: {{ $scaling.min }}
  maxReplicaCount: {{ $scaling.max }}
  pollingInterval: 15
  cooldownPeriod: 300
  triggers:
    {{- if .lag }}
    - type: kafka
      metadata:
        {{- include "tidemill.kafkaTrigger" . | nindent 8 }}
      {{- if $root.Values.secrets.kafka }}
      authenticationRef: {name: {{ include "tidemill.fullname" $root }}-kafka}
      {{- end }}
    {{- else }}
    - type: prometheus
      metadata:
        serverAddress: {{ $root.Values.keda.prometheusAddress }}
        query: {{ .query | quote }}
        threshold: {{ .threshold | quote }}
    {{- end }}
{{- else -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "tidemill.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "tidemill.name" . }}}
  minReplicas: {{ $scaling.min }}
  maxReplicas: {{ $scaling.max }}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300}
  metrics:
    {{- if .podMetric }}
    - type: Pods
      pods:
        metric: {name: {{ .podMetric }}}
        target: {type: AverageValue, averageValue: {{ .threshold | quote }}}
    {{- else }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 70}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where the lag is read. Brokers, SASL and TLS are those of platform.eventlog_url, and so is the prefix of topics and groups. */}}
{{- define "tidemill.kafkaTrigger" -}}
{{- $url := .root.Values.config.platform.eventlog_url }}
{{- $prefix := regexFind "topic_prefix=[^&]*" $url | trimPrefix "topic_prefix=" }}
{{- $mechanism := regexFind "sasl_mechanism=[^&]*" $url | trimPrefix "sasl_mechanism=" -}}
bootstrapServers: {{ regexReplaceAll "^kafka://([^/?]*).*$" $url "${1}" | quote }}
consumerGroup: {{ $prefix }}{{ .name }}
topic: {{ printf "%stidemill.%s.tasks" $prefix .name }}
lagThreshold: {{ .lag | quote }}
offsetResetPolicy: earliest
{{- if $mechanism }}
sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") $mechanism | required (printf "KEDA does not know the sasl_mechanism %s" $mechanism) }}
{{- end }}
tls: {{ ternary "enable" "disable" (regexMatch "security_protocol=(ssl|sasl_ssl)" $url) }}
{{- end }}
