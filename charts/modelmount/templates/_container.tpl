{{/* What the containers of the node plugin and of the controller share. */}}

{{/* Takes: root, component. */}}
{{- define "modelmount.commonArgs" -}}
{{- $values := .root.Values -}}
- --driver-name={{ $values.driver.name }}
- --log-level={{ default $values.logLevel (index $values .component).logLevel }}
- --log-format={{ $values.loggingFormat }}
{{- with $values.policy.allowAddresses }}
- --allow-address={{ join "," . }}
{{- end }}
{{- with $values.policy.allowPlainHttp }}
- --allow-plain-http={{ join "," . }}
{{- end }}
{{- range $values.registryMirrors }}
- --{{ if .resolves }}resolving-{{ end }}registry-mirror={{ .registry }}={{ .url }}
{{- end }}
{{- if or $values.ca.configMap $values.ca.secret }}
- --ca-file=/etc/modelmount/ca/{{ $values.ca.key }}
{{- end }}
{{- if $values.metrics.enabled }}
- --metrics-address=:{{ $values.metrics.port }}
{{- end }}
{{- end -}}

{{- define "modelmount.proxyEnv" -}}
{{- with .Values.proxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "modelmount.caVolumeMount" -}}
{{- if or .Values.ca.configMap .Values.ca.secret }}
- name: ca
  mountPath: /etc/modelmount/ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "modelmount.caVolume" -}}
{{- if .Values.ca.configMap }}
- name: ca
  configMap:
    name: {{ .Values.ca.configMap | quote }}
{{- else if .Values.ca.secret }}
- name: ca
  secret:
    secretName: {{ .Values.ca.secret | quote }}
{{- end }}
{{- end -}}

{{/* A container that fits the Pod Security profile "restricted". */}}
{{- define "modelmount.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A pod that fits it. OpenShift's restricted-v2 hands out the user id itself and refuses any other. */}}
{{- define "modelmount.restrictedPod" -}}
runAsNonRoot: true
{{- if not .Values.openshift.enabled }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The probes of a container whose port "health" serves them. Takes: ready, the path for readiness. */}}
{{- define "modelmount.probes" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet:
    path: {{ .ready }}
    port: health
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}
