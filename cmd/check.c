/* Checks a configuration without serving it.
 *
 * Python applications are built by a real node: this file plays the head on the other end of the
 * node's link, sends BUILD and reads GRAPH or FAILED. Then the same code as in a deploy validates the
 * graph and merges the options; here the result is printed.
 */
#include "cmd/check.h"

#include "cmd/certificate.h"

#include "cmd/node.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/config/deployment.h"
#include "core/graph/graph.h"
#include "core/model/policy.h"
#include "net/wire/conn.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct checking {
    struct rs_config *config;
    json_t **graphs; /* one per application; NULL: not built */
    size_t waiting;  /* BUILD messages without an answer */
    unsigned problems;
    struct rs_loop *loop;
    struct rs_conn *conn;
    bool drained;
};

/* --- playing the head ---------------------------------------------------------------------------- */

static ssize_t app_index(const struct checking *c, const char *name)
{
    for (size_t i = 0; name && i < c->config->app_count; i++) {
        if (strcmp(c->config->apps[i].name, name) == 0)
            return (ssize_t)i;
    }
    return -1;
}

static void send_build(struct checking *c, const struct rs_config_app *app)
{
    rs_auto(rs_freep) char *version = rs_asprintf("%016" PRIx64, rs_config_app_code_hash(app));
    rs_auto(rs_json_decrefp) json_t *build = json_pack(
        "{s:s, s:s, s:s, s:s?, s:O, s:O, s:s?, s:s}", "app", app->name, "version", version,
        "import_path", app->import_path, "app_dir", app->app_dir, "args", app->args, "runtime_env",
        app->runtime_env, "python", app->python, "start", "auto");

    rs_conn_send_json(c->conn, RS_MSG_BUILD, 0, build);
    c->waiting++;
}

static void build_all(struct checking *c)
{
    for (size_t i = 0; i < c->config->app_count; i++) {
        if (c->config->apps[i].import_path && !c->config->apps[i].failure)
            send_build(c, &c->config->apps[i]);
    }
    if (c->waiting == 0)
        rs_loop_stop(c->loop);
}

static void on_frame(struct rs_conn *conn, struct rs_frame *f, void *arg)
{
    struct checking *c = arg;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    struct rs_error err = {0};
    ssize_t i;

    (void)conn;
    if (rs_frame_json(f, &msg, &err) < 0)
        return;
    if (f->h.type == RS_MSG_JOIN) {
        build_all(c);
        return;
    }
    i = app_index(c, rs_json_str(msg, "app", NULL));
    if (i < 0 || (f->h.type != RS_MSG_GRAPH && f->h.type != RS_MSG_FAILED))
        return;
    if (f->h.type == RS_MSG_GRAPH) {
        c->graphs[i] = json_incref(msg);
    } else {
        const char *trace = rs_json_str(msg, "traceback", "");

        if (*trace)
            fprintf(stderr, "%s%s", trace, trace[strlen(trace) - 1] == '\n' ? "" : "\n");
        fprintf(stderr, "application %s: %s\n", c->config->apps[i].name,
                rs_json_str(msg, "error", "cannot be built"));
        c->problems++;
    }
    if (--c->waiting == 0)
        rs_loop_stop(c->loop);
}

static void on_close(struct rs_conn *conn, const struct rs_error *why, void *arg)
{
    struct checking *c = arg;

    (void)conn;
    fprintf(stderr, "the node that builds went away: %s\n", why->msg);
    c->problems++;
    rs_loop_stop(c->loop);
}

static const struct rs_conn_ops conn_ops = {.on_frame = on_frame, .on_close = on_close};

static void on_drained(void *arg)
{
    struct checking *c = arg;

    c->drained = true;
    rs_loop_stop(c->loop);
}

static int link_node(struct checking *c, struct rs_node *node, struct rs_error *err)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    if (rs_conn_new(&c->conn, c->loop, fds[0], &conn_ops, c, err) < 0) {
        close(fds[1]);
        return -1;
    }
    return rs_node_link(node, fds[1], err);
}

static int build(struct checking *c, const struct rs_serve_options *o, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *resources = NULL;
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    rs_auto(rs_metrics_freep) struct rs_metrics *metrics = rs_metrics_new();
    rs_auto(rs_node_freep) struct rs_node *node = NULL;
    rs_auto(rs_conn_freep) struct rs_conn *conn = NULL;
    struct rs_node_conf conf = {.node_id = "check",
                                .name = "check",
                                .state_dir = o->state_dir,
                                .python = o->python,
                                .echo = true,
                                .ingress = {.lanes = 1}};
    int r;

    signal(SIGPIPE, SIG_IGN);
    if (rs_loop_new(&loop, err) < 0 || rs_serve_resources(o, &resources, err) < 0)
        return -1;
    c->loop = loop;
    conf.resources = resources;
    r = rs_node_new(&node, loop, &conf, metrics, &(struct rs_node_ops){.on_drained = on_drained}, c,
                    err);
    if (r < 0 || link_node(c, node, err) < 0)
        return -1;
    conn = c->conn;
    r = rs_loop_run(loop);
    rs_node_kill(node);
    while (r == 0 && !c->drained)
        r = rs_loop_run(loop);
    return r;
}

/* --- what comes out ------------------------------------------------------------------------------ */

static void note(const struct rs_graph_node *n, struct rs_buf *out, void *arg)
{
    (void)arg;
    rs_buf_printf(out, "  [%s%s%s]", rs_deployment_kind_name(n->kind), n->object ? " " : "",
                  n->object ? n->object : "");
}

static bool is_default(const struct rs_deployment_conf *conf, const char *key)
{
    return strcmp(rs_json_str(conf->sources, key, "default"), "default") == 0;
}

/* What is printed may end up in a log: values of env_vars stay out of it. */
static char *dump_without_secrets(const json_t *value)
{
    rs_auto(rs_json_decrefp) json_t *copy = json_deep_copy(value);
    json_t *vars = json_object_get(json_object_get(copy, "runtime_env"), "env_vars"), *v;
    const char *key;

    json_object_foreach (vars, key, v)
        json_object_set_new(vars, key, json_string("***"));
    return rs_json_dump(copy);
}

/* Each value and where it comes from. Defaults that say nothing are left out, unless `all`. */
static void print_conf(const struct rs_deployment_conf *conf, bool all, struct rs_buf *out)
{
    const char *key;
    json_t *value;

    rs_buf_printf(out, "\n  %s: %d replica%s, each ", conf->name, conf->num_replicas,
                  conf->num_replicas == 1 ? "" : "s");
    rs_resources_print(out, &conf->resources);
    rs_buf_puts(out, "\n");
    json_object_foreach (conf->json, key, value) {
        rs_auto(rs_freep) char *text = dump_without_secrets(value);

        if (strcmp(key, "name") == 0)
            continue;
        if (!all && is_default(conf, key) && (json_is_null(value) || json_is_object(value)))
            continue;
        rs_buf_printf(out, "    %-30s %-24s %s\n", key, text,
                      rs_json_str(conf->sources, key, "default"));
    }
}

static void print_limit(const struct rs_rate_limit *l, struct rs_buf *out)
{
    rs_buf_printf(out, ", at most %.12g requests/s (burst %u)", l->requests_per_s, l->burst);
    if (l->key == RS_RATE_CLIENT)
        rs_buf_puts(out, " per client");
    else if (l->key == RS_RATE_HEADER)
        rs_buf_printf(out, " per %s", l->header);
}

/* What holds for the requests of a route, or of all of them. */
static void print_route(const struct rs_app_policy *p, const struct rs_route_policy *r,
                        struct rs_buf *out)
{
    rs_auto(rs_buf_fini) struct rs_buf name = {0};

    for (char **m = r->methods; m && *m; m++)
        rs_buf_printf(&name, "%s%s", m == r->methods ? "" : ",", *m);
    rs_buf_printf(&name, "%s%s", r->methods ? " " : "", r->path);
    rs_buf_printf(out, "  requests to %-18s priority %u", rs_buf_text(&name), r->priority);
    if (r->max_body != UINT64_MAX) {
        rs_buf_puts(out, ", body up to ");
        rs_memory_print(out, (int64_t)r->max_body);
    }
    if (r->request_timeout > 0)
        rs_buf_printf(out, ", at most %.12g s", (double)r->request_timeout / 1e9);
    else if (r->request_timeout == 0)
        rs_buf_puts(out, ", no time limit");
    if (r->idempotent)
        rs_buf_puts(out, ", idempotent");
    if (r->limit >= 0)
        print_limit(&p->limits[r->limit], out);
    rs_buf_puts(out, "\n");
}

static void print_policy(const struct rs_config_app *app, struct rs_buf *out)
{
    rs_auto(rs_json_decrefp) json_t *j = rs_config_app_policy(app);
    rs_auto(rs_app_policy_freep) struct rs_app_policy *p = NULL;
    struct rs_error err = {0};

    if (json_object_size(j) == 0 || rs_app_policy_new(&p, j, &err) < 0)
        return;
    for (size_t i = 0; i < p->n_routes; i++)
        print_route(p, &p->routes[i], out);
}

/* 0, or -1 with the reason in `err`. */
static int print_app(struct checking *c, size_t i, bool all, struct rs_buf *out,
                     struct rs_error *err)
{
    const struct rs_config_app *app = &c->config->apps[i];
    rs_auto(rs_graph_freep) struct rs_graph *graph = NULL;
    struct rs_diags diags = {0};
    int r = 0;

    if (rs_graph_build(&graph, app, c->graphs[i], err) < 0)
        return -1;
    rs_buf_printf(out, "%s  %s  %s\n", app->name,
                  app->route_prefix ? app->route_prefix : "(no route)",
                  app->import_path ? app->import_path : "(declared in the file)");
    if (c->graphs[i])
        rs_buf_printf(out, "  replicas start by %s%s%s\n",
                      rs_json_str(c->graphs[i], "start", "fork"),
                      *rs_json_str(c->graphs[i], "start_reason", "") ? ": " : "",
                      rs_json_str(c->graphs[i], "start_reason", ""));
    print_policy(app, out);
    rs_graph_print(graph, out, note, NULL);
    for (size_t k = 0; k < graph->count; k++) {
        rs_auto(rs_deployment_conf_freep) struct rs_deployment_conf *conf = NULL;

        if (rs_deployment_merge(&conf, c->config, app, graph->nodes[k].name,
                                graph->nodes[k].options, &diags) == 0)
            print_conf(conf, all, out);
    }
    if (diags.count) {
        struct rs_buf text = {0};

        rs_diags_print(&text, &diags);
        fputs(rs_buf_text(&text), stderr);
        rs_buf_fini(&text);
    }
    if (diags.errors)
        r = rs_diags_to_error(&diags, err);
    rs_diags_fini(&diags);
    return r;
}

int rs_check(struct rs_config *config, const struct rs_serve_options *options, bool import,
             struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *owned = config;
    struct checking c = {.config = config};
    struct rs_buf out = {0};
    int r = 0;

    rs_log_setup(options->verbose ? RS_LOG_DEBUG : RS_LOG_WARN, RS_LOG_TEXT);
    if (rs_certificate_check(config, err) < 0)
        return -1;
    c.graphs = rs_alloc((config->app_count + 1) * sizeof(json_t *));
    for (size_t i = 0; import && i < config->app_count && r == 0; i++) {
        if (config->apps[i].import_path) {
            r = build(&c, options, err);
            break;
        }
    }
    for (size_t i = 0; r == 0 && i < config->app_count; i++) {
        const struct rs_config_app *app = &config->apps[i];
        struct rs_error why = {0};

        if (app->failure || (app->import_path && !c.graphs[i] && import)) {
            c.problems++; /* it was said */
        } else if (app->import_path && !c.graphs[i]) {
            rs_buf_printf(&out, "%s  %s  %s (not imported)\n", app->name,
                          app->route_prefix ? app->route_prefix : "(no route)", app->import_path);
        } else if (print_app(&c, i, options->verbose, &out, &why) < 0) {
            fprintf(stderr, "application %s: %s\n", app->name, why.msg);
            c.problems++;
        }
    }
    fputs(rs_buf_text(&out), stdout);
    for (size_t i = 0; i < config->app_count; i++)
        json_decref(c.graphs[i]);
    free(c.graphs);
    rs_buf_fini(&out);
    if (r < 0)
        return -1;
    return c.problems ? RS_EXIT_USAGE : RS_EXIT_OK;
}
