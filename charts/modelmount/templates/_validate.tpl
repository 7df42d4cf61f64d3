{{/* Combinations of values that can't work, and that values.schema.json can't tell. Each message begins with the key. */}}

{{- define "modelmount.validate" -}}
{{- $values := .Values -}}
{{- include "modelmount.validatePaths" . -}}
{{- include "modelmount.validateStorageClasses" . -}}
{{- include "modelmount.validateDisruptionBudget" . -}}
{{- $socket := printf "%s/plugins/%s/csi.sock" $values.node.kubeletPath $values.driver.name -}}
{{- if gt (len $socket) 107 -}}
{{- fail (printf "node.kubeletPath: the plugin's socket would be %s, and Linux takes 107 characters" $socket) -}}
{{- end -}}
{{- if and $values.ca.configMap $values.ca.secret -}}
{{- fail "ca.secret: not together with ca.configMap" -}}
{{- end -}}
{{- if and $values.metrics.podMonitor.enabled (not $values.metrics.enabled) -}}
{{- fail "metrics.podMonitor.enabled: there is nothing to monitor without metrics.enabled" -}}
{{- end -}}
{{- $ports := dict -}}
{{- range $key, $port := dict "health.port" $values.health.port "metrics.port" $values.metrics.port
    "metrics.provisionerPort" $values.metrics.provisionerPort -}}
{{- $port = printf "%v" $port -}}
{{- with get $ports $port }}{{ fail (printf "%s: the port %s is that of %s too" $key $port .) }}{{ end -}}
{{- $_ := set $ports $port $key -}}
{{- end -}}
{{- range $component := list "node" "controller" -}}
{{- $account := (index $values $component).serviceAccount -}}
{{- if not (or $account.create $account.name) -}}
{{- fail (printf "%s.serviceAccount.name: name the ServiceAccount that is to be used, or set %s.serviceAccount.create"
    $component $component) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "modelmount.serviceAccountName" (dict "root" . "component" "node"))
    (include "modelmount.serviceAccountName" (dict "root" . "component" "controller")) -}}
{{- fail "controller.serviceAccount.name: must not be the node's: the node plugin would get the controller's rights" -}}
{{- end -}}
{{- if and $values.node.hostNetwork $values.networkPolicy.node.egress -}}
{{- fail "networkPolicy.node.egress: no policy applies to pods with node.hostNetwork" -}}
{{- end -}}
{{- end -}}

{{/* The cache, kubelet's directory and what file:// may read keep apart: the plugin owns the first, kubelet the second,
     and neither holds models for others to read. */}}
{{- define "modelmount.validatePaths" -}}
{{- $paths := dict "cache.hostPath" .Values.cache.hostPath "node.kubeletPath" .Values.node.kubeletPath -}}
{{- range $index, $root := .Values.policy.allowFileRoots -}}
{{- $_ := set $paths (printf "policy.allowFileRoots[%d]" $index) $root -}}
{{- end -}}
{{- range $key, $path := $paths -}}
{{- range $otherKey, $other := $paths -}}
{{- $bothRoots := and (hasPrefix "policy." $key) (hasPrefix "policy." $otherKey) -}}
{{- if and (ne $key $otherKey) (not $bothRoots) (hasPrefix (printf "%s/" $other) (printf "%s/" $path)) -}}
{{- fail (printf "%s: %s must not be in %s, which is %s" $key $path $otherKey $other) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "modelmount.validateDisruptionBudget" -}}
{{- with .Values.controller.podDisruptionBudget -}}
{{- if and (toString .minAvailable) (toString .maxUnavailable) -}}
{{- fail "controller.podDisruptionBudget.minAvailable: not together with maxUnavailable" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "modelmount.validateStorageClasses" -}}
{{- if and .Values.storageClasses (not .Values.controller.enabled) -}}
{{- fail "storageClasses: they need the controller: set controller.enabled" -}}
{{- end -}}
{{- $names := list -}}
{{- range .Values.storageClasses -}}
{{- if has .name $names }}{{ fail (printf "storageClasses: two have the name %s" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
