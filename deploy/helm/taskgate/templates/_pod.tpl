{{/* All pods of the chart: no root, no API server token, nothing writable except /tmp and the working folder. */}}
{{- define "taskgate.pod" -}}
automountServiceAccountToken: false
# A Service named taskgate would otherwise set TASKGATE_PORT and others in the environment, which taskgate reads as configuration.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: 30
{{- end }}

{{- define "taskgate.container" -}}
image: {{ include "taskgate.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
envFrom:
  - secretRef:
      name: {{ include "taskgate.secret" . }}
volumeMounts:
  - name: config
    mountPath: /etc/taskgate
    readOnly: true
  - name: temporary
    mountPath: /tmp
  - name: work
    mountPath: /var/lib/taskgate
{{- end }}

{{- define "taskgate.volumes" -}}
- name: config
  configMap:
    name: {{ include "taskgate.name" . }}
- name: temporary
  emptyDir:
    sizeLimit: {{ .Values.gateway.temporarySpace }}
- name: work
  emptyDir:
    sizeLimit: 1Gi
{{- end }}
