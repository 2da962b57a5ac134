{{/*
Names, labels and images. Every helper takes a context: root (the chart's), name (a service's), values (that service's section).
*/}}

{{- define "tidemill.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tidemill.name" -}}
{{ include "tidemill.fullname" .root }}-{{ .name }}
{{- end }}

{{/* What selects a component's pods; never changes. */}}
{{- define "tidemill.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "tidemill.labels" -}}
{{ include "tidemill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidemill
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "tidemill.metadata" -}}
name: {{ include "tidemill.name" . }}
labels:
  {{- include "tidemill.labels" . | nindent 2 }}
{{- end }}

{{/* <registry>/<repository>-<image>:<tag><suffix>; a digest wins over the tag. Context: root, image, suffix. */}}
{{- define "tidemill.image" -}}
{{- $of := .root.Values.image }}
{{- $repository := printf "%s%s-%s" (ternary "" (printf "%s/" $of.registry) (empty $of.registry)) $of.repository .image }}
{{- with index $of.digests .image }}{{ $repository }}@{{ . }}{{ else }}{{ $repository }}:{{ $of.tag | default .root.Chart.AppVersion }}{{ .suffix }}{{ end }}
{{- end }}

{{/* How long a pod may take to leave: it answers on for the drain delay, then finishes what is in flight, then has a little to spare. */}}
{{- define "tidemill.graceSeconds" -}}
{{- add (int .Values.config.server.drain_delay_seconds) (int .Values.config.server.shutdown_grace_seconds) 5 -}}
{{- end }}
