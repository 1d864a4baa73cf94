#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/http/ingress-internal.h"
#include "net/http/websocket_frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The series of one method and status on one route. */
struct rs_http_series {
    struct rs_http_series *next;
    const char *method; /* one of the labels: compared by address */
    unsigned status;
    struct rs_series *requests, *latency, *errors, *deployment_errors;
};

static struct rs_http_series *find(struct rs_http_request *req, unsigned status)
{
    struct rs_route *route = req->route;
    const struct rs_router_metrics *m = req->server->lane->metrics;
    struct rs_http_route_cache *c = route->cache;
    struct rs_http_series *s;
    char code[8];
    bool error = status >= 400 && status != RS_WS_NORMAL && status != RS_WS_GOING_AWAY;

    if (!c) { /* what no application takes */
        c = route->cache = rs_alloc(sizeof(*c));
        route->table->drop_cache = rs_http_route_cache_free;
    }
    for (s = c->series; s; s = s->next) {
        if (s->status == status && s->method == req->label)
            return s;
    }
    s = rs_alloc(sizeof(*s));
    s->status = status;
    s->method = req->label;
    snprintf(code, sizeof(code), "%u", status);
    s->requests = rs_family_series(
        m->http_requests, (const char *const[]){route->prefix, s->method, route->app, code});
    s->latency = rs_family_series(
        m->http_latency, (const char *const[]){s->method, route->prefix, route->app, code});
    if (error)
        s->errors = rs_family_series(
            m->http_errors, (const char *const[]){route->prefix, code, s->method, route->app});
    if (error && route->ingress)
        s->deployment_errors = rs_family_series(
            m->deployment_errors,
            (const char *const[]){route->ingress, code, s->method, route->prefix, route->app});
    s->next = c->series;
    c->series = s;
    return s;
}

const char *rs_http_cause_name(enum rs_http_cause cause)
{
    static const char *const names[] = {
#define RS_X(name, text) text,
        RS_HTTP_CAUSES(RS_X)
#undef RS_X
    };

    return names[cause];
}

static void count_cause(struct rs_http_request *req)
{
    struct rs_route *route = req->route;
    struct rs_http_route_cache *c = route->cache;
    struct rs_series **s = &c->causes[req->cause];

    if (!*s)
        *s = rs_family_series(
            req->server->lane->metrics->http_refused,
            (const char *const[]){route->prefix, route->app, rs_http_cause_name(req->cause)});
    rs_series_add(*s, 1);
    rs_lane_refused(req->server->lane);
}

void rs_http_count(struct rs_http_request *req, unsigned status, int64_t now)
{
    struct rs_http_series *s = find(req, status);

    rs_series_add(s->requests, 1);
    rs_series_observe(s->latency, (double)(now - req->started_at) / (double)RS_MS);
    if (s->errors)
        rs_series_add(s->errors, 1);
    if (s->deployment_errors)
        rs_series_add(s->deployment_errors, 1);
    if (req->cause)
        count_cause(req);
}

void rs_http_route_cache_free(void *cache)
{
    struct rs_http_route_cache *c = cache;

    while (c->series) {
        struct rs_http_series *next = c->series->next;

        free(c->series);
        c->series = next;
    }
    rs_buf_fini(&c->fields);
    rs_buf_fini(&c->where);
    free(c);
}
