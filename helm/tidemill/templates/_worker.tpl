{{/*
The Job that a service starts for each of its workers; the launcher puts in name, labels, command, environment and the number of ranks.
Ranks of one job find each other as <job>-<index>.<subdomain>. Context: that of the service whose worker it is.
*/}}
{{- define "tidemill.workerJob" -}}
{{- $root := .root }}
{{- $worker := index $root.Values.workers .name }}
{{- $pod := dict "root" $root "name" "worker" "values" $worker -}}
apiVersion: batch/v1
kind: Job
metadata:
  labels:
    {{- include "tidemill.labels" $pod | nindent 4 }}
    {{- with $root.Values.workers.queue }}
    kueue.x-k8s.io/queue-name: {{ . }}
    {{- end }}
spec:
  completionMode: Indexed
  completions: 1
  parallelism: 1
  # The service itself starts a worker again, and knows whether it came further. What is no fault of the worker's does not count.
  backoffLimit: 0
  podReplacementPolicy: Failed
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: "True"}]
  # The service reaps its Jobs; this is for those whose service has gone for good.
  ttlSecondsAfterFinished: 604800
  template:
    metadata:
      labels:
        {{- include "tidemill.labels" $pod | nindent 8 }}
    spec:
      {{- include "tidemill.podBasics" $pod | nindent 6 }}
      automountServiceAccountToken: false
      subdomain: {{ include "tidemill.name" $pod }}
      # Process 1 would not hear a SIGTERM before it says what to do then; with this the worker is another one.
      shareProcessNamespace: true
      restartPolicy: Never
      terminationGracePeriodSeconds: {{ $worker.terminationGracePeriodSeconds }}
      containers:
        - name: worker
          image: {{ include "tidemill.image" (dict "root" $root "image" .name "suffix" $worker.imageSuffix) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          securityContext:
            {{- include "tidemill.containerSecurity" . | nindent 12 }}
          env:
            - {name: MASTER_PORT, value: {{ $root.Values.workers.ranksPort | quote }}}
            {{- with $worker.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          resources:
            {{- range $what, $amounts := $worker.resources }}
            {{ $what }}:
              {{- range $resource, $amount := $amounts }}
              {{ $resource }}: {{ toString $amount | quote }}
              {{- end }}
            {{- end }}
          volumeMounts:
            {{- if $root.Values.secrets.s3 }}
            - {name: config, mountPath: /etc/tidemill, readOnly: true}
            {{- end }}
            - {name: data, mountPath: /var/lib/tidemill}
            - {name: tmp, mountPath: /tmp}
      volumes:
        {{- if $root.Values.secrets.s3 }}
        # A worker reads and writes artifacts, and nothing else: it gets the credentials for that alone.
        - name: config
          projected:
            defaultMode: 288 # 0440
            sources:
              {{- include "tidemill.secretSource" (dict "folder" "secrets/s3" "secret" $root.Values.secrets.s3 "service" "worker") | trim | nindent 14 }}
        {{- end }}
        - name: data
          emptyDir: {sizeLimit: {{ toString $worker.scratch | quote }}}
        - name: tmp
          emptyDir: {sizeLimit: {{ toString $root.Values.tmpSize | quote }}}
{{- end }}
