{{- define "karrot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "karrot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- else if contains (include "karrot.name" .) .Release.Name -}}
{{- .Release.Name | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "karrot.name" .) | trunc 55 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "karrot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "karrot.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "karrot.labels" -}}
{{ include "karrot.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "karrot.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else if and .Values.karrot (eq .Values.image.repository "lowess/karrot") -}}
{{- /* Values of the first chart name an image of the first Karrot. */ -}}
{{ .Values.image.repository }}:{{ .Chart.AppVersion }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "karrot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "karrot.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- /* What was asked for that cannot be. */ -}}
{{- define "karrot.check" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.sharding.enabled) -}}
{{- fail "replicaCount is above 1: each Karrot shows all groups that it is told of, so every group would be there more than once. One Karrot is enough for any Burrow; for several set sharding.enabled=true and read docs/deploying.md" -}}
{{- end -}}
{{- if .Values.burrow.enabled -}}
{{- fail "burrow.enabled: this chart brings no Burrow. Run your own (1.9 or newer), and set burrow.configMap=true for a burrow.toml that fits" -}}
{{- end -}}
{{- if and (contains "cloudwatch" (include "karrot.configs" .)) (not (include "karrot.hasRegion" .)) -}}
{{- fail "cloudwatch.region is empty: without a region Karrot does not start. Set it, or env.AWS_REGION" -}}
{{- end -}}
{{- if and .Values.secure.enabled (or (not .Values.secure.tlsSecret) (not .Values.secure.htpasswdSecret) (not .Values.secure.tokenSecret)) -}}
{{- fail "secure.enabled needs secure.tlsSecret (with tls.crt and tls.key), secure.htpasswdSecret (with the key htpasswd) and secure.tokenSecret (with the key prometheus.token)" -}}
{{- end -}}
{{- if and .Values.persistence.enabled (not .Values.storage.enabled) -}}
{{- fail "persistence.enabled needs storage.enabled: nothing else writes to the volume" -}}
{{- end -}}
{{- if and .Values.cloudwatch.enabled (eq .Values.cloudwatch.overlay "cloudwatch-durable") (not .Values.storage.enabled) -}}
{{- fail "cloudwatch.overlay=cloudwatch-durable needs storage.enabled: its queue is on that volume" -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (eq (kindIs "invalid" .Values.podDisruptionBudget.minAvailable) (kindIs "invalid" .Values.podDisruptionBudget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget needs minAvailable or maxUnavailable, and not both" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway that the route belongs to, [{name: ...}]" -}}
{{- end -}}
{{- range .Values.overlays -}}
{{- if has . (list "karrot" "cloudwatch" "storage" "secure") -}}
{{- fail (printf "overlays: %s has a value of its own: %s" . (ternary "it is always there" (printf "%s.enabled=true" .) (eq . "karrot"))) -}}
{{- end -}}
{{- if has . (list "cloudwatch-durable" "cloudwatch-otlp") -}}
{{- fail (printf "overlays: %s has values of its own: cloudwatch.enabled=true and cloudwatch.overlay=%s" . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* 80 % of a memory limit, as Go writes it; nothing for a limit in another form than Mi or Gi. */ -}}
{{- define "karrot.gomemlimit" -}}
{{- $text := toString . -}}
{{- if hasSuffix "Mi" $text -}}{{ div (mul (trimSuffix "Mi" $text | atoi) 80) 100 }}MiB
{{- else if hasSuffix "Gi" $text -}}{{ div (mul (trimSuffix "Gi" $text | atoi) 1024 80) 100 }}MiB
{{- end -}}
{{- end -}}

{{- define "karrot.hasRegion" -}}
{{- $env := include "karrot.env" . | fromYaml -}}
{{- if or $env.AWS_REGION $env.AWS_DEFAULT_REGION .Values.envFrom .Values.existingSecret -}}yes{{- end -}}
{{- end -}}

{{- /* All variables: those that the chart sets, those of the first chart, and those of the user, who wins. */ -}}
{{- define "karrot.env" -}}
{{- $env := dict "KARROT_ENDPOINT" "0.0.0.0:5000" "KARROT_PROMETHEUS_ENDPOINT" "0.0.0.0:8889" "KARROT_HEALTH_ENDPOINT" "0.0.0.0:13133" "KARROT_TELEMETRY_HOST" "0.0.0.0" "KARROT_TELEMETRY_PORT" "8888" -}}
{{- with (.Values.resources.limits | default dict).memory -}}
{{- $_ := set $env "GOMEMLIMIT" (include "karrot.gomemlimit" .) -}}
{{- end -}}
{{- with .Values.cloudwatch -}}
{{- if .enabled -}}
{{- $_ := set $env "AWS_REGION" .region -}}
{{- $_ := set $env "KARROT_CLOUDWATCH_NAMESPACE" .namespace -}}
{{- $_ := set $env "KARROT_CLOUDWATCH_INTERVAL" (toString .interval) -}}
{{- $_ := set $env "KARROT_CLOUDWATCH_LOG_GROUP" .logGroup -}}
{{- if and (eq .overlay "cloudwatch-otlp") $.Values.storage.enabled -}}
{{- $_ := set $env "KARROT_QUEUE_STORAGE" "file_storage" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := (.Values.karrot.env | default dict) -}}
{{- if ne $name "KARROT_REPORTERS" -}}{{- $_ := set $env $name (toString $value) -}}{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.env -}}{{- $_ := set $env $name (toString $value) -}}{{- end -}}
{{- range $name, $value := $env -}}
{{- if $value }}
{{ $name }}: {{ $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The reporters of the first chart. */ -}}
{{- define "karrot.reporters" -}}
{{- get (.Values.karrot.env | default dict) "KARROT_REPORTERS" | default "" | toString -}}
{{- end -}}

{{- /* The configurations in their order. */ -}}
{{- define "karrot.configs" -}}
- /config/karrot.yaml
{{- range .Values.overlays }}
- /config/{{ . }}.yaml
{{- end }}
{{- $reporters := splitList "," (include "karrot.reporters" . | nospace) }}
{{- range list "prometheus" "cloudwatch" }}
{{- if and (has . $reporters) (not (has (printf "karrot1-%s" .) $.Values.overlays)) }}
- /config/karrot1-{{ . }}.yaml
{{- end }}
{{- end }}
{{- if .Values.cloudwatch.enabled }}
- /config/{{ .Values.cloudwatch.overlay }}.yaml
{{- end }}
{{- if .Values.storage.enabled }}
- /config/storage.yaml
{{- end }}
{{- if .Values.secure.enabled }}
- /config/secure.yaml
{{- end }}
{{- if .Values.config }}
- /etc/karrot-values/config.yaml
{{- end }}
{{- end -}}

{{- /* The pod, for the Deployment and for the StatefulSet. */ -}}
{{- define "karrot.pod" -}}
metadata:
  labels:
    {{- include "karrot.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := dict }}
  {{- if .Values.config }}
  {{- $_ := set $annotations "checksum/config" (.Values.config | toYaml | sha256sum) }}
  {{- end }}
  {{- $annotations = mergeOverwrite $annotations (.Values.karrot.podAnnotations | default dict | deepCopy) (.Values.podAnnotations | deepCopy) }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "karrot.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.serviceAccount.automountToken }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: karrot
      image: {{ include "karrot.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- range include "karrot.configs" . | fromYamlArray }}
        - --config={{ . }}
        {{- end }}
      env:
        {{- range $name, $value := include "karrot.env" . | fromYaml }}
        - name: {{ $name }}
          value: {{ $value | quote }}
        {{- end }}
      {{- if or .Values.envFrom .Values.existingSecret }}
      envFrom:
        {{- with .Values.envFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with .Values.existingSecret }}
        - secretRef:
            name: {{ . }}
        {{- end }}
      {{- end }}
      ports:
        - name: webhook
          containerPort: 5000
        - name: metrics
          containerPort: 8889
        - name: telemetry
          containerPort: 8888
        - name: health
          containerPort: 13133
      readinessProbe:
        httpGet:
          path: /heartbeat
          port: health
      livenessProbe:
        httpGet:
          path: /heartbeat
          port: health
        periodSeconds: 20
        failureThreshold: 6
      {{- if .Values.preStopSleepSeconds }}
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSleepSeconds }}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      {{- if or .Values.storage.enabled .Values.secure.enabled .Values.config .Values.extraVolumeMounts }}
      volumeMounts:
        {{- if .Values.storage.enabled }}
        - name: storage
          mountPath: /var/lib/karrot
        {{- end }}
        {{- if .Values.secure.enabled }}
        - name: secure
          mountPath: /etc/karrot
          readOnly: true
        {{- end }}
        {{- if .Values.config }}
        - name: config
          mountPath: /etc/karrot-values
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- $claim := and .Values.persistence.enabled (not .Values.sharding.enabled) }}
  {{- $empty := and .Values.storage.enabled (not .Values.persistence.enabled) }}
  {{- if or $claim $empty .Values.secure.enabled .Values.config .Values.extraVolumes }}
  volumes:
    {{- if $claim }}
    - name: storage
      persistentVolumeClaim:
        claimName: {{ include "karrot.fullname" . }}
    {{- else if $empty }}
    - name: storage
      emptyDir:
        sizeLimit: {{ .Values.persistence.sizeLimit }}
    {{- end }}
    {{- if .Values.secure.enabled }}
    - name: secure
      projected:
        sources:
          - secret:
              name: {{ .Values.secure.tlsSecret }}
          - secret:
              name: {{ .Values.secure.htpasswdSecret }}
          - secret:
              name: {{ .Values.secure.tokenSecret }}
    {{- end }}
    {{- if .Values.config }}
    - name: config
      configMap:
        name: {{ include "karrot.fullname" . }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
