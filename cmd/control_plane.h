/* What a control plane is given by the node that starts it (cmd/control.c): descriptors. */
#pragma once

enum {
    RS_CONTROL_CONF = 3, /* a file with the JSON below */
    RS_CONTROL_LINK = 4, /* a connected socket: the node, which will JOIN */
    RS_CONTROL_REST = 5, /* listening sockets: the REST API, */
    RS_CONTROL_JOIN = 6  /* other nodes */
};

enum { RS_CONTROL_CONF_MAX = 64 << 20 };

/* {"node_id", "app_dir", "http_host", "http_port", "https", "driver_socket" or null, "values_dir",
 *  "keep_dir", "forget", "quiet", "verbose", "json": as in struct rs_control_conf,
 *  "config": to be deployed (core/config/kept.h), or null: what was kept} */
