/* The control plane's figures for Prometheus, read off the details that the REST API gives: status of
 * applications, deployments and proxies, health of replicas, what the autoscaler wants. Names, labels and numbers are Ray's.
 *
 * Thread: one; the families belong to it.
 */
#pragma once

#include "core/metrics/metrics.h"

#include <jansson.h>

enum { RS_GAUGES_SCALING = 4 };

struct rs_gauges {
    struct rs_family *application, *deployment, *replica, *proxy;
    struct rs_family *scaling[RS_GAUGES_SCALING]; /* of deployments that autoscale */
};

void rs_gauges_init(struct rs_gauges *g, struct rs_metrics *metrics);
/* `details` as in GET /api/serve/applications/; what is no longer in it is no longer exported. */
void rs_gauges_update(struct rs_gauges *g, const json_t *details);
