{{/*
What discovery may do: read, nothing else. deploy/README.md says what each rule is for and what happens
without it.
*/}}

{{- define "kagent-proxy.rules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [kagent.dev]
  resources: [agents, sandboxagents, remotemcpservers, mcpservers]
  verbs: [get, list, watch]
- apiGroups: [api.kagent.dev]
  resources: [agents, agenttemplates, remotemcpservers]
  verbs: [get, list, watch]
{{- end }}

{{/* The one who is allowed, as a binding names it. */}}
{{- define "kagent-proxy.subjects" -}}
- kind: ServiceAccount
  name: {{ include "kagent-proxy.serviceAccount" . }}
  namespace: {{ include "kagent-proxy.namespace" . }}
{{- end }}

{{/* A Role and its binding. Takes (list ROOT NAMESPACE NAME RULES). */}}
{{- define "kagent-proxy.role" -}}
{{- $root := index . 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "kagent-proxy.labels" $root | nindent 4 }}
rules:
  {{- index . 3 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "kagent-proxy.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ index . 2 }}
subjects:
  {{- include "kagent-proxy.subjects" $root | nindent 2 }}
{{- end }}
