{{/* The node's sidecars. Takes: root, plugin (directory of the plugin's socket). They run as root, because only root may
     connect to that socket, and otherwise without any right. */}}
{{- define "modelmount.nodeSidecars" -}}
{{- $values := .root.Values -}}
- name: node-driver-registrar
  image: {{ include "modelmount.image" (dict "root" .root "image" $values.sidecars.nodeDriverRegistrar.image) }}
  imagePullPolicy: {{ $values.sidecars.nodeDriverRegistrar.image.pullPolicy }}
  args:
    - --csi-address={{ .plugin }}/csi.sock
    - --kubelet-registration-path={{ .plugin }}/csi.sock
    - --logging-format={{ $values.loggingFormat }}
  securityContext:
    {{- include "modelmount.restrictedContainer" .root | nindent 4 }}
  resources:
    {{- toYaml $values.sidecars.nodeDriverRegistrar.resources | nindent 4 }}
  volumeMounts:
    - name: plugins
      mountPath: {{ $values.node.kubeletPath }}/plugins
    - name: registration
      mountPath: /registration
- name: liveness-probe
  image: {{ include "modelmount.image" (dict "root" .root "image" $values.sidecars.livenessProbe.image) }}
  imagePullPolicy: {{ $values.sidecars.livenessProbe.image.pullPolicy }}
  args:
    - --csi-address={{ .plugin }}/csi.sock
    - --http-endpoint=:{{ $values.health.port }}
    - --probe-timeout=3s
    - --logging-format={{ $values.loggingFormat }}
  securityContext:
    {{- include "modelmount.restrictedContainer" .root | nindent 4 }}
  resources:
    {{- toYaml $values.sidecars.livenessProbe.resources | nindent 4 }}
  volumeMounts:
    - name: plugins
      mountPath: {{ $values.node.kubeletPath }}/plugins
{{- end -}}
