{{/* One call with the client to one server. Context: root, name (of the container), to (a component), arguments. */}}
{{- define "tidemill.call" -}}
- name: {{ .name }}
  image: {{ include "tidemill.image" (dict "root" .root "image" "cli") }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  securityContext:
    {{- include "tidemill.containerSecurity" . | nindent 4 }}
  args: {{ toJson .arguments }}
  env:
    - {name: TIDEMILL_SERVER, value: "{{ ternary "http" "https" (empty .root.Values.secrets.tls) }}://{{ include "tidemill.fullname" .root }}-{{ .to }}:7460"}
    - name: TIDEMILL_API_KEY
      valueFrom:
        secretKeyRef: {name: {{ .root.Values.secrets.api.existingSecret }}, key: internal}
  resources:
    requests: {cpu: 50m, memory: 32Mi, ephemeral-storage: 16Mi}
    limits: {memory: 64Mi, ephemeral-storage: 16Mi}
{{- end }}
