{{/* Names and labels. */}}

{{- define "modelmount.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for "-controller" behind it: names of pods' owners may have 63 characters. */}}
{{- define "modelmount.fullname" -}}
{{- $name := include "modelmount.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The rest of these take a dict: root, and component (node, controller or test; may be absent). */}}

{{- define "modelmount.componentName" -}}
{{ include "modelmount.fullname" .root }}-{{ .component }}
{{- end -}}

{{- define "modelmount.serviceAccountName" -}}
{{- default (include "modelmount.componentName" .) (index .root.Values .component).serviceAccount.name -}}
{{- end -}}

{{- define "modelmount.selectorLabels" -}}
app.kubernetes.io/name: {{ include "modelmount.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* What is the chart's own wins over commonLabels, and those over labels given as "extra". */}}
{{- define "modelmount.labels" -}}
{{- $own := include "modelmount.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- toYaml (merge $own .root.Values.commonLabels (default dict .extra)) -}}
{{- end -}}

{{/* Labels of pods: no versions, so that an upgrade that changes nothing else restarts nothing. */}}
{{- define "modelmount.podLabels" -}}
{{- toYaml (merge (include "modelmount.selectorLabels" . | fromYaml) (default dict .extra) .root.Values.commonLabels) -}}
{{- end -}}

{{/* metadata of an object. Also takes: name, namespace (by default the release's), clusterWide (none), labels, annotations. */}}
{{- define "modelmount.metadata" -}}
name: {{ .name | quote }}
{{- if not .clusterWide }}
namespace: {{ default .root.Release.Namespace .namespace | quote }}
{{- end }}
labels:
  {{- include "modelmount.labels" (dict "root" .root "component" .component "extra" .labels) | nindent 2 }}
{{- with merge dict (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Name of an image. Takes: root, image. */}}
{{- define "modelmount.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.imageRegistry -}}
{{- /* The first part is a registry if it could be a host: as container runtimes read it. */ -}}
{{- $path := regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "" -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $path -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}
