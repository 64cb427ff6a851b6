{{/*
The program's configuration, and what the objects must know of it: ports, grace period, permissions. They
are read off the merged configuration, so that an override cannot make them disagree.
*/}}

{{- define "kagent-proxy.controller" -}}
{{- default (printf "kagent-controller.%s" (include "kagent-proxy.namespace" .)) .Values.controller -}}
{{- end }}

{{/* What the chart writes, with `config` merged over it. */}}
{{- define "kagent-proxy.config" -}}
{{- $discovery := dict "enabled" true "controller" (include "kagent-proxy.controller" .) -}}
{{- with .Values.rbac.namespaces -}}
{{- $_ := set $discovery "namespaces" (uniq .) -}}
{{- end -}}
{{- $listener := dict "name" "http" "address" (printf "[::]:%d" (int .Values.service.ports.targetPort)) -}}
{{- $local := ternary 9090 9091 (eq (int .Values.metrics.port) 9091) -}}
{{- $config := dict
  "listeners" (list $listener)
  "admin" (dict "address" (printf "[::]:%d" (int .Values.metrics.port)) "local" (printf "127.0.0.1:%d" $local))
  "clusterDomain" "cluster.local"
  "sessions" (dict "keyFiles" (list "/etc/kagent-proxy-sessions/key"))
  "drain" (dict "lag" "5s" "deadline" "5m")
  "log" (dict "format" "json" "level" "info" "access" true)
  "discovery" $discovery -}}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml -}}
{{- end }}

{{/* "true" if the program watches the cluster, and so needs its token and permissions. */}}
{{- define "kagent-proxy.discovers" -}}
{{- $config := include "kagent-proxy.config" . | fromYaml -}}
{{- if (($config.discovery).enabled) -}}true{{- end -}}
{{- end }}

{{/* The port of an address. Takes (list KEY OBJECT), for what holds the address and where it stands. */}}
{{- define "kagent-proxy.port" -}}
{{- $address := toString ((last .).address) -}}
{{- $port := regexFind ":[0-9]+$" $address | trimPrefix ":" -}}
{{- required (printf "%s: no address with a port, such as \"[::]:8080\"; leave the key out for the chart's own" (first .)) $port -}}
{{- end }}

{{/* The container's ports: each listener's, then the admin one. */}}
{{- define "kagent-proxy.ports" -}}
{{- $config := include "kagent-proxy.config" . | fromYaml -}}
{{- range $i, $listener := default (list dict) $config.listeners -}}
- name: {{ if $i }}http-{{ add1 $i }}{{ else }}http{{ end }}
  containerPort: {{ include "kagent-proxy.port" (list (printf "config.listeners[%d]" $i) $listener) }}
  protocol: TCP
{{ end -}}
- name: admin
  containerPort: {{ include "kagent-proxy.port" (list "config.admin" $config.admin) }}
  protocol: TCP
{{- end }}

{{/* The port on loopback that a port-forward asks: that of the admin socket where it is on loopback itself. */}}
{{- define "kagent-proxy.local" -}}
{{- $admin := (include "kagent-proxy.config" . | fromYaml).admin -}}
{{- $one := regexMatch "^(127\\.|\\[::1\\])" (toString $admin.address) -}}
{{- include "kagent-proxy.port" (list "config.admin.local" (dict "address" (ternary $admin.address $admin.local $one))) -}}
{{- end }}

{{/* Whole seconds of a duration such as 1m30s, rounded up. */}}
{{- define "kagent-proxy.seconds" -}}
{{- $unit := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" (toString .) -1 -}}
{{- $total = add $total (mul (regexFind "[0-9]+" .) (get $unit (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- div (add $total 999) 1000 -}}
{{- end }}

{{/* The pod's grace period: longer than the drain, with time to spare for the exit itself. */}}
{{- define "kagent-proxy.grace" -}}
{{- $drain := default dict (include "kagent-proxy.config" . | fromYaml).drain -}}
{{- $lag := default "5s" $drain.lag -}}
{{- $deadline := default "5m" $drain.deadline -}}
{{- add (include "kagent-proxy.seconds" $lag) (include "kagent-proxy.seconds" $deadline) 25 -}}
{{- end }}

{{/* What a rollout must follow: everything but the routes, which the program reads again by itself. */}}
{{- define "kagent-proxy.checksum" -}}
{{- omit (include "kagent-proxy.config" . | fromYaml) "routes" "defaultRoutes" | toYaml | sha256sum -}}
{{- end }}
