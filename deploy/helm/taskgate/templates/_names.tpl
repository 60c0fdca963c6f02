{{- define "taskgate.name" -}}
{{- $name := contains "taskgate" .Release.Name | ternary .Release.Name (printf "%s-taskgate" .Release.Name) -}}
{{ $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels for selectors, which must never change. Called with (list $ "component"). */}}
{{- define "taskgate.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: taskgate
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "taskgate.labels" -}}
{{- $root := index . 0 -}}
{{ include "taskgate.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{- define "taskgate.image" -}}
{{ required "image.repository: where you pushed the image, as in registry.example/taskgate" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "taskgate.secret" -}}
{{- if .Values.secret.existing }}{{ .Values.secret.existing }}
{{- else if .Values.secret.values }}{{ include "taskgate.name" . }}
{{- else }}{{ fail "secret.existing: the name of a Secret with DATABASE_URL, CELERY_BROKER_URL and CELERY_RESULT_BACKEND" }}
{{- end }}
{{- end }}
