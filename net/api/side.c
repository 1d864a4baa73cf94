#include "net/api/side.h"

#include "core/base/alloc.h"
#include "net/api/process.h"
#include "net/http/web.h"

#include <string.h>

enum { CONNECTIONS_MAX = 64, IDLE_S = 30, BODY_MAX = 64 * 1024 };

struct rs_side {
    struct rs_side_conf conf;
    struct rs_web *web;
};

static const char *const health_paths[] = {"/api/healthz", "/api/local_raylet_healthz",
                                           "/-/healthz"};

static bool is_health(const char *path)
{
    for (size_t i = 0; i < RS_COUNT(health_paths); i++)
        if (strcmp(path, health_paths[i]) == 0)
            return true;
    return false;
}

static void put_metrics(struct rs_side *s, struct rs_web_answer *a)
{
    if (s->conf.collect)
        s->conf.collect(s->conf.arg);
    a->type = "text/plain; version=0.0.4; charset=utf-8";
    rs_metrics_text(s->conf.metrics, &a->body);
    rs_process_text(&a->body);
}

static bool on_header(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    struct rs_side *s = arg;
    bool reads = strcmp(req->method, "GET") == 0 || strcmp(req->method, "HEAD") == 0;

    a->status = 200;
    a->type = "text/plain; charset=utf-8";
    if (reads && is_health(req->path)) {
        rs_buf_puts(&a->body, "success");
    } else if (reads && strcmp(req->path, "/metrics") == 0) {
        put_metrics(s, a);
    } else {
        a->status = reads ? 404 : 405;
        rs_buf_puts(&a->body, "there is GET /metrics and GET /api/healthz");
    }
    return true;
}

/* Never: every request is answered by its header. */
static void on_request(const struct rs_web_request *req, struct rs_web_answer *a, void *arg)
{
    (void)on_header(req, a, arg);
}

static void on_refused(int status, const char *why, struct rs_web_answer *a, void *arg)
{
    (void)arg;
    a->status = status;
    a->type = "text/plain; charset=utf-8";
    rs_buf_puts(&a->body, why);
}

static const struct rs_web_ops ops = {on_header, on_request, on_refused};

int rs_side_new(struct rs_side **ret, struct rs_loop *loop, const struct rs_side_conf *conf,
                struct rs_error *err)
{
    rs_auto(rs_side_freep) struct rs_side *s = rs_alloc(sizeof(*s));
    const struct rs_web_conf web = {.host = conf->host,
                                    .port = conf->port,
                                    .option = conf->option,
                                    .body_max = BODY_MAX,
                                    .connections = CONNECTIONS_MAX,
                                    .idle_s = IDLE_S};

    s->conf = *conf;
    if (rs_web_new(&s->web, loop, &web, &ops, s, err) < 0)
        return -1;
    *ret = rs_steal(s);
    return 0;
}

void rs_side_free(struct rs_side *s)
{
    if (!s)
        return;
    rs_web_free(s->web);
    free(s);
}

uint16_t rs_side_port(const struct rs_side *s)
{
    return rs_web_port(s->web);
}
