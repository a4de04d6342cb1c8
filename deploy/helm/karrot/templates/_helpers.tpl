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
{{- if and .Values.persistence.enabled (not .Values.sharding.enabled) (eq (.Values.strategy.type | default "Recreate") "RollingUpdate") -}}
{{- fail "strategy.type is RollingUpdate, and the volume of persistence.enabled has one writer: the new pod would wait for the old one, which would wait for the new one. Leave strategy empty, or write {type: Recreate}" -}}
{{- end -}}
{{- if has (int .Values.service.port) (list 8888 8889) -}}
{{- fail (printf "service.port is %d, which is another port of the Service (8889 has the groups, 8888 Karrot itself). Take another one; 80 is the default" (int .Values.service.port)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts is empty: name a host with its paths, [{host: ..., paths: [/burrow]}]" -}}
{{- end -}}
{{- if and .Values.cloudwatch.roleArn (not .Values.serviceAccount.create) -}}
{{- fail "cloudwatch.roleArn is written to the service account, and serviceAccount.create is false: annotate your own with eks.amazonaws.com/role-arn, and leave cloudwatch.roleArn empty" -}}
{{- end -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int .Values.preStopSleepSeconds) -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and preStopSleepSeconds uses up %d of them. Karrot needs 21 s more to hand over what it has" (int .Values.terminationGracePeriodSeconds) (int .Values.preStopSleepSeconds)) -}}
{{- end -}}
{{- range list "app.kubernetes.io/name" "app.kubernetes.io/instance" -}}
{{- if hasKey $.Values.podLabels . -}}
{{- fail (printf "podLabels: Services find the pods by %s. Use nameOverride for another name" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.burrow.configMap .Values.sharding.enabled (gt (int .Values.replicaCount) 1) -}}
{{- fail "burrow.configMap has one notifier, and sharding.enabled needs one for each Karrot, with a group-allowlist. Write burrow.toml yourself; the notes have the addresses" -}}
{{- end -}}
{{- $env := include "karrot.env" . | fromYaml -}}
{{- if and (gt (int .Values.replicaCount) 1) (get $env "KARROT_BURROW_API") -}}
{{- fail "env.KARROT_BURROW_API with several Karrots: each would poll, and show, all groups. Let Burrow notify each of its own, or take one Karrot" -}}
{{- end -}}
{{- range $name, $port := dict "KARROT_ENDPOINT" "5000" "KARROT_PROMETHEUS_ENDPOINT" "8889" "KARROT_HEALTH_ENDPOINT" "13133" -}}
{{- $address := get $env $name -}}
{{- if or (not (hasSuffix (printf ":%s" $port) $address)) (regexMatch "^(localhost|127\\.|\\[::1\\])" $address) -}}
{{- fail (printf "env.%s is %s: in the pod Karrot must listen on port %s of all interfaces, 0.0.0.0:%s or [::]:%s. What others see is service.port" $name $address $port $port $port) -}}
{{- end -}}
{{- end -}}
{{- if ne (get $env "KARROT_TELEMETRY_PORT") "8888" -}}
{{- fail "env.KARROT_TELEMETRY_PORT must be 8888, which is the port of the pod and of the Service" -}}
{{- end -}}
{{- if regexMatch "^(localhost|127\\.|\\[?::1)" (get $env "KARROT_TELEMETRY_HOST") -}}
{{- fail "env.KARROT_TELEMETRY_HOST must be that of all interfaces, 0.0.0.0 or [::]: Prometheus comes from outside of the pod" -}}
{{- end -}}
{{- with get $env "KARROT_STORAGE_DIRECTORY" -}}
{{- if and $.Values.storage.enabled (not (hasPrefix "/var/lib/karrot" .)) (not $.Values.extraVolumeMounts) -}}
{{- fail (printf "env.KARROT_STORAGE_DIRECTORY is %s, and nothing there can be written to: the volume is at /var/lib/karrot. Leave it out, or mount a volume with extraVolumes and extraVolumeMounts" .) -}}
{{- end -}}
{{- end -}}
{{- /* Their defaults are addresses on this machine, and here that is the pod. */ -}}
{{- if not (or .Values.config .Values.envFrom .Values.existingSecret) -}}
{{- range $overlay, $name := dict "api" "KARROT_BURROW_API" "otlp" "KARROT_OTLP_ENDPOINT" "remote-write" "KARROT_REMOTE_WRITE_ENDPOINT" -}}
{{- if and (has $overlay $.Values.overlays) (not (get $env $name)) -}}
{{- fail (printf "overlays: %s has an address on localhost by default, which is the pod itself: set env.%s" $overlay $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.cloudwatch.enabled (has "cloudwatch-lean" .Values.overlays) -}}
{{- fail "overlays: cloudwatch-lean is instead of cloudwatch.enabled's own: each value would be sent, and paid for, twice. Write cloudwatch.overlay=cloudwatch-lean" -}}
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

{{- /* A value as it was written. Numbers in values are floats, and large ones would be 1e+06. */ -}}
{{- define "karrot.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) (float64 .)) -}}{{ int64 . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{- /* 80 % of a memory limit, as Go writes it; nothing for a limit with an exponent. */ -}}
{{- define "karrot.gomemlimit" -}}
{{- $text := include "karrot.text" . -}}
{{- $units := dict "" 1 "k" 1000 "Ki" 1024 "M" 1000000 "Mi" 1048576 "G" 1000000000 "Gi" 1073741824 "T" 1000000000000 "Ti" 1099511627776 -}}
{{- if regexMatch "^[0-9]+([.][0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?$" $text -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- divf (mulf (trimSuffix $unit $text | float64) (get $units $unit) 0.8) 1048576 | floor | int64 }}MiB
{{- end -}}
{{- end -}}

{{- /* Where Burrow finds the Service, inside of the cluster. */ -}}
{{- define "karrot.url" -}}
{{- $scheme := ternary "https" "http" .Values.secure.enabled -}}
{{- $port := ternary "" (printf ":%d" (int .Values.service.port)) (eq (int .Values.service.port) (ternary 443 80 .Values.secure.enabled)) -}}
{{ $scheme }}://{{ include "karrot.fullname" . }}.{{ .Release.Namespace }}.svc{{ $port }}
{{- end -}}

{{- define "karrot.hasRegion" -}}
{{- $env := include "karrot.env" . | fromYaml -}}
{{- if or $env.AWS_REGION $env.AWS_DEFAULT_REGION .Values.envFrom .Values.existingSecret -}}yes{{- end -}}
{{- end -}}

{{- /* Another name for the label cluster, which some of Karrot's own metrics have too. */ -}}
{{- define "karrot.clusterLabel" -}}
{{- with .Values.serviceMonitor.clusterLabel -}}
metricRelabelings:
  - sourceLabels: [cluster]
    regex: (.+)
    targetLabel: {{ . }}
  - action: labeldrop
    regex: cluster
{{- end -}}
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
{{- $_ := set $env "KARROT_CLOUDWATCH_INTERVAL" (include "karrot.text" .interval) -}}
{{- $_ := set $env "KARROT_CLOUDWATCH_LOG_GROUP" .logGroup -}}
{{- if and (eq .overlay "cloudwatch-otlp") $.Values.storage.enabled -}}
{{- $_ := set $env "KARROT_QUEUE_STORAGE" "file_storage" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := (.Values.karrot.env | default dict) -}}
{{- if ne $name "KARROT_REPORTERS" -}}{{- $_ := set $env $name (include "karrot.text" $value) -}}{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.env -}}{{- $_ := set $env $name (include "karrot.text" $value) -}}{{- end -}}
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
