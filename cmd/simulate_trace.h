/* What a simulation replays: when requests came and how long the work on them took. A JSON object a
 * line, of one of two kinds, which may be mixed:
 *
 *     {"t": 12.5, "app": "default", "service_s": 0.08}
 *     {"t": 12.5, "path": "/rag/ask", "service_s": {"Ingress": 0.01, "Generator": 0.4}}
 *     {"timestamp_ns": .., "latency_ms": .., "application": "default", "path": .., "status": 200, ..}
 *
 * The third is a line of rserve's own access log (JSON): it tells when a request ended and how long it
 * took altogether, which is taken for its service time.
 *
 * Ownership: rs_sim_trace_fini releases all; text is the trace's.
 * Errors:    "FILE:LINE: "service_s": expected .., got ..".
 */
#pragma once

#include "core/base/error.h"
#include "core/base/map.h"

#include <stdbool.h>
#include <stddef.h>

#define RS_SIM_LINE_MAX (1u << 16) /* bytes of a line */
#define RS_SIM_TIME_MAX 1e11       /* seconds */

/* Work of one deployment on a request. */
struct rs_sim_work {
    const char *deployment; /* NULL: the one that takes the application's requests */
    double service_s;       /* < 0: not known */
};

struct rs_sim_arrival {
    double t;         /* seconds, since whenever */
    const char *app;  /* NULL: by the path */
    const char *path; /* NULL: "/" */
    size_t work; /* of trace->works; the first is that of the ingress, which calls the others */
    unsigned works;
    unsigned line;
};

struct rs_sim_trace {
    struct rs_sim_arrival *arrivals; /* by time */
    size_t n, cap;
    struct rs_sim_work *works;
    size_t n_works, cap_works;
    struct rs_map texts;
    size_t from_log; /* so many are lines of an access log */
};

/* `ret` is zeroed; on failure there is nothing to release. */
RS_MUST_CHECK int rs_sim_trace_parse(struct rs_sim_trace *ret, const char *text, size_t len,
                                     const char *file, struct rs_error *err);
RS_MUST_CHECK int rs_sim_trace_load(struct rs_sim_trace *ret, const char *file,
                                    struct rs_error *err);
void rs_sim_trace_fini(struct rs_sim_trace *t);
