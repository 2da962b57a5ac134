{{/*
The pod template that all services share. Context: root, name, values; optional: image (when not the name), http (serves HTTP too),
launcher (starts workers as Jobs, so it gets a token for the API server), data (a volume in place of the empty scratch folder).
*/}}
{{- define "tidemill.pod" -}}
{{- $root := .root }}
{{- $values := .values -}}
metadata:
  labels:
    {{- include "tidemill.labels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "tidemill.toml" $root | sha256sum }}
    {{- if .launcher }}
    checksum/worker-job: {{ include "tidemill.workerJob" . | sha256sum }}
    {{- end }}
spec:
  {{- include "tidemill.podBasics" . | nindent 2 }}
  automountServiceAccountToken: {{ .launcher | default false }}
  terminationGracePeriodSeconds: {{ include "tidemill.graceSeconds" $root }}
  containers:
    - name: {{ .name }}
      image: {{ include "tidemill.image" (dict "root" $root "image" (.image | default .name) "suffix" $values.imageSuffix) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      securityContext:
        {{- include "tidemill.containerSecurity" . | nindent 8 }}
      env:
        - {name: TIDEMILL_CONFIG, value: /etc/tidemill/tidemill.toml}
        - name: TIDEMILL__SERVICES__API_KEY
          valueFrom:
            secretKeyRef: {name: {{ $root.Values.secrets.api.existingSecret }}, key: internal}
        {{- if .launcher }}
        - {name: TIDEMILL__PLATFORM__LAUNCHER_URL, value: "kubernetes:///?job_template=/etc/tidemill/worker-job.yaml"}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: grpc, containerPort: 7460}
        {{- if .http }}
        - {name: http, containerPort: 7461}
        {{- end }}
        - {name: metrics, containerPort: 9464}
      # Started and alive: the process answers, whatever it waits for. Ready: it can serve now; the first to fail on SIGTERM.
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 2
        failureThreshold: {{ div (int $values.startupSeconds | default 120) 2 }}
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/tidemill, readOnly: true}
        - {name: data, mountPath: /var/lib/tidemill}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      projected:
        defaultMode: 288 # 0440
        sources:
          - configMap:
              name: {{ include "tidemill.fullname" $root }}
          {{- if .launcher }}
          - configMap:
              name: {{ include "tidemill.fullname" $root }}-worker-jobs
              items: [{key: {{ .name }}.yaml, path: worker-job.yaml}]
          {{- end }}
          {{- range $folder, $secret := $root.Values.secrets }}
          {{- include "tidemill.secretSource" (dict "folder" (printf "secrets/%s" $folder) "secret" $secret "service" $.name) | nindent 10 }}
          {{- end }}
          {{- if has .name (list "ingestion" "standalone") }}
          {{- range $folder, $secret := $root.Values.sources }}
          {{- include "tidemill.secretSource" (dict "folder" (printf "sources/%s" $folder) "secret" $secret "service" $.name) | nindent 10 }}
          {{- end }}
          {{- end }}
    {{- if not .data }}
    - name: data
      emptyDir: {sizeLimit: {{ $values.scratch }}}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: {{ $root.Values.tmpSize }}}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "tidemill.selector" . | nindent 10 }}
{{- end }}

{{/* What pods of services, workers and tests have in common. */}}
{{- define "tidemill.podBasics" -}}
serviceAccountName: {{ .account | default (include "tidemill.name" .) }}
enableServiceLinks: false
{{- with .values.priorityClassName }}
priorityClassName: {{ tpl . $.root }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tidemill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* One existing Secret as files in a folder. A name may hold {service}: then each service has a Secret of its own. */}}
{{- define "tidemill.secretSource" -}}
{{- if .secret -}}
- secret:
    name: {{ .secret.existingSecret | replace "{service}" .service }}
    items:
      {{- range .secret.keys }}
      - {key: {{ . }}, path: {{ $.folder }}/{{ . }}}
      {{- end }}
{{- end }}
{{- end }}
