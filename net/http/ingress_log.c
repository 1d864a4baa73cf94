/* A line in the access log for each request. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/http/access_line.h"
#include "net/http/access_log.h"
#include "net/http/ingress-internal.h"
#include "net/http/server.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct rs_http_log {
    struct rs_access_log *file;
    struct rs_access_form form;
    int64_t ahead;     /* of the wall clock before the monotonic one */
    int64_t looked_at; /* when that was measured; 0: never */
};

int rs_http_log_open(struct rs_http_server *s, struct rs_error *err)
{
    const struct rs_ingress_conf *conf = s->conf;
    struct rs_http_log *log;
    struct rs_access_log *file = NULL;

    if (!conf->access_log)
        return 0;
    if (rs_access_log_open(&file, s->lane->loop, conf->access_log,
                           rs_family_series(s->lane->metrics->access_log_dropped, NULL), err) < 0)
        return -1;
    log = rs_alloc(sizeof(*log));
    log->file = file;
    log->form.json = conf->access_log_json;
    log->form.node = conf->node_ip && *conf->node_ip ? conf->node_ip : conf->host;
    s->log = log;
    return 0;
}

void rs_http_log_close(struct rs_http_server *s)
{
    if (s->log)
        rs_access_log_free(s->log->file);
    free(s->log);
    s->log = NULL;
}

void rs_http_log_turn(struct rs_http_server *s)
{
    rs_access_log_turn(s->log->file);
}

void rs_http_server_reopen_log(struct rs_http_server *s)
{
    if (s && s->log)
        rs_access_log_reopen(s->log->file);
}

static int64_t wall(struct rs_http_log *log, int64_t now)
{
    if (!log->looked_at || now - log->looked_at > RS_SEC) { /* it may be set */
        log->looked_at = now;
        log->ahead = llround(rs_clock_wall() * 1e9) - now;
    }
    return now + log->ahead;
}

/* The text of the connection's CLIENT field, which comes first. */
static void set_client(struct rs_access *a, const struct rs_http_request *req)
{
    enum { HEAD = 5 }; /* tag and length of a field */
    const struct rs_http_conn *conn = req->conn;
    const unsigned char *f = (const unsigned char *)rs_buf_head(&conn->fields);
    size_t len = rs_buf_len(&conn->fields);

    if (req->forwarded) {
        a->client = conn->origin->client;
        a->client_len = strlen(a->client);
    } else if (len >= HEAD && f[0] == RS_TAG_CLIENT && len - HEAD >= f[1]) {
        a->client = (const char *)f + HEAD;
        a->client_len = f[1]; /* an address is short */
    } else {
        a->client = "-";
        a->client_len = 1;
    }
}

void rs_http_log(struct rs_http_request *req, unsigned status, int64_t now)
{
    struct rs_http_log *log = req->server->log;
    struct rs_http_route_cache *cache = req->route->cache; /* made when it was counted */
    struct rs_buf *line = rs_access_log_line(log->file);
    struct rs_access a = {
        .wall = wall(log, now),
        .took = now - req->started_at,
        .path = rs_buf_text(&req->target),
        .path_len = req->path_len,
        .method = req->method ? req->method : req->label,
        .request_id = rs_buf_text(&req->id),
        .request_id_len = rs_buf_len(&req->id),
        .where = &cache->where,
        .replica = req->replica,
        .cause = rs_http_cause_name(req->cause),
        .status = status,
        .bytes = req->sent,
    };

    if (!line)
        return;
    if (!cache->where.data) {
        const struct rs_route *r = req->route;

        rs_access_where(&cache->where, &log->form, r->prefix ? r->prefix : "", r->app,
                        r->ingress ? r->ingress : "");
    }
    set_client(&a, req);
    rs_access_line(line, &log->form, &a);
}
