{{/* Names and labels, as kagent's chart makes them. */}}

{{- define "kagent-proxy.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "kagent-proxy.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end }}

{{- define "kagent-proxy.serviceAccount" -}}
{{- $own := ternary (include "kagent-proxy.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end }}

{{/* The Secret with the key of MCP sessions. */}}
{{- define "kagent-proxy.sessions" -}}
{{- default (printf "%s-sessions" (include "kagent-proxy.fullname" .)) .Values.sessions.existingSecret -}}
{{- end }}

{{- define "kagent-proxy.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kagent-proxy.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "kagent-proxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: kagent
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object in the release's namespace. Takes (list ROOT NAME). */}}
{{- define "kagent-proxy.metadata" -}}
{{- $root := first . -}}
name: {{ last . }}
namespace: {{ include "kagent-proxy.namespace" $root }}
labels:
  {{- include "kagent-proxy.labels" $root | nindent 2 }}
{{- end }}

{{- define "kagent-proxy.image" -}}
{{- $registry := default .Values.registry .Values.image.registry -}}
{{- $name := ternary (printf "%s/%s" $registry .Values.image.repository) .Values.image.repository (ne $registry "") -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end }}
