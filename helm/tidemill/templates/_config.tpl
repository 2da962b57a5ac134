{{/*
The one settings file: what the chart knows (listeners, neighbours, files of secrets), then .Values.config, which wins.
JSON's strings, numbers, booleans and lists are TOML's too, so each value is written as JSON.
*/}}
{{- define "tidemill.toml" -}}
{{- $secrets := "/etc/tidemill/secrets" }}
{{- $server := dict
  "grpc_address" "0.0.0.0:7460" "http_address" "0.0.0.0:7461" "admin_address" "0.0.0.0:9464"
  "api_keys_file" (printf "%s/api/keys" $secrets) }}
{{- $services := dict }}
{{- $scheme := "http" }}
{{- with .Values.secrets.tls }}
{{- $scheme = "https" }}
{{- $_ := set $server "tls_certificate_file" (printf "%s/tls/tls.crt" $secrets) }}
{{- $_ := set $server "tls_key_file" (printf "%s/tls/tls.key" $secrets) }}
{{- $_ := set $server "tls_client_ca_file" (printf "%s/tls/ca.crt" $secrets) }}
{{- $_ := set $services "tls_ca_file" (printf "%s/tls/ca.crt" $secrets) }}
{{- $_ := set $services "tls_certificate_file" (printf "%s/tls/tls.crt" $secrets) }}
{{- $_ := set $services "tls_key_file" (printf "%s/tls/tls.key" $secrets) }}
{{- end }}
{{- if not .Values.standalone.enabled }}
{{- range list "ingestion" "preprocessing" "training" "evaluation" "registry" "inference" "pipeline" }}
{{- $_ := set $services . (printf "%s://%s-%s:7460" $scheme (include "tidemill.fullname" $) .) }}
{{- end }}
{{- end }}
{{- $ingestion := dict "cache_dir" "/var/lib/tidemill/sources" }}
{{- if .Values.sources }}
{{- $_ := set $ingestion "kafka_files_dir" "/etc/tidemill/sources" }}
{{- end }}
{{- /* Workers as Jobs outlive a rollout of the service that started them; those of one process leave with it. */}}
{{- $chart := dict
  "server" $server
  "services" $services
  "telemetry" (dict "format" "json")
  "platform" (dict "data_dir" "/var/lib/tidemill" "stop_workers_on_shutdown" .Values.standalone.enabled)
  "ingestion" $ingestion -}}
# The settings of every service; each key is documented in the default.toml of its owner. The environment wins over this file.
{{- range $section, $keys := mergeOverwrite $chart (deepCopy .Values.config) }}
{{- if $keys }}

[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
