/* A port beside the REST API, on any node: is it alive, and its figures. What probes of containers and
 * Prometheus ask for where Ray has a port of its own (52365 for health, 8080 for metrics).
 *
 *   GET /api/healthz, /api/local_raylet_healthz, /-/healthz   "success"
 *   GET /metrics                                              Prometheus text
 *
 * Nothing can be changed here, so no token is asked for.
 * Thread: the loop's.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "core/metrics/metrics.h"

struct rs_side;

struct rs_side_conf {
    const char *host;           /* IP address or localhost */
    uint16_t port;              /* 0: any free one */
    const char *option;         /* named when the port is taken: "--metrics-export-port" */
    struct rs_metrics *metrics; /* borrowed */
    void (*collect)(void *arg); /* bring gauges up to date before they are read; may be NULL */
    void *arg;
};

RS_MUST_CHECK int rs_side_new(struct rs_side **ret, struct rs_loop *loop,
                              const struct rs_side_conf *conf, struct rs_error *err);
void rs_side_free(struct rs_side *s);
RS_DEFINE_AUTO(struct rs_side *, rs_side_free);
uint16_t rs_side_port(const struct rs_side *s);
