#include "cmd/head-internal.h"

#include "cmd/ask.h"
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "core/config/config.h"
#include "net/wire/conn.h"

#include <string.h>

enum { REPORT_MS = 1000, SILENT_MS = RS_NODE_SILENT / RS_MS, LOOK_MS = 1000 };

/* The connection of one node. */
struct link {
    struct rs_list in; /* head's list */
    struct rs_head *head;
    struct rs_conn *conn;
    char *node_id; /* NULL until it joined */
    int64_t heard_at;
    struct rs_controller_loss loss; /* how it is lost */
    bool within; /* the node is in this process: it speaks when there is something to say */
};

/* --- what outlives it ---------------------------------------------------------------------------- */

int rs_head_keep(struct rs_head *h, struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *desired = NULL;

    h->changed = false;
    if (!h->saved)
        return 0;
    desired = rs_controller_desired(h->controller);
    if (rs_controller_histories(h->controller))
        json_object_set(desired, "history",
                        (json_t *)(uintptr_t)rs_controller_histories(h->controller));
    if (rs_saved_write(h->saved, desired, err) == 0)
        return 0;
    rs_log_error("what the head was told holds, but is forgotten when it ends", "error=\"%s\"",
                 err->msg);
    return rs_error_wrap(err,
                         "this holds from now on, but a head that is started anew will not know");
}

static void keep_quietly(struct rs_head *h)
{
    struct rs_error err = {0};

    if (rs_head_keep(h, &err) < 0)
        return; /* it was logged, and nobody waits for an answer */
}

static void restore_counts(const json_t *counts, void *arg)
{
    struct rs_head *h = arg;

    rs_controller_restore_counts(h->controller, counts);
}

static void restore_history(const char *name, const json_t *history, void *arg)
{
    struct rs_head *h = arg;

    rs_controller_restore_history(h->controller, name, history);
}

static void restore_forecasts(const json_t *forecasts, void *arg)
{
    struct rs_head *h = arg;

    rs_controller_restore_forecasts(h->controller, forecasts);
}

static void restore_rolls(const json_t *rolls, void *arg)
{
    struct rs_head *h = arg;

    rs_controller_restore_rolls(h->controller, rolls);
}

static int restore_config(struct rs_config *config, void *arg, struct rs_error *err)
{
    struct rs_head *h = arg;

    rs_head_who(h, "restored");
    return rs_head_apply(h, config, err);
}

static int skip_config(struct rs_config *config, void *arg, struct rs_error *err)
{
    (void)arg;
    (void)err;
    rs_config_free(config);
    return 0;
}

static int restore_app(const char *name, struct rs_config *config, void *arg, struct rs_error *err)
{
    struct rs_head *h = arg;

    (void)name;
    rs_head_who(h, "restored");
    return rs_controller_put(h->controller, config, rs_clock_now(), err);
}

void rs_head_restore(struct rs_head *h, bool config)
{
    const struct rs_saved_ops ops = {
        restore_counts, restore_history,   config ? restore_config : skip_config,
        restore_app,    restore_forecasts, restore_rolls};
    struct rs_saved *saved = rs_steal(h->saved); /* not while it is read */

    if (!saved)
        return;
    rs_saved_restore(saved, &ops, h);
    h->saved = saved;
}

/* --- links --------------------------------------------------------------------------------------- */

static void link_free(struct link *l)
{
    struct rs_head *h = l->head;

    rs_list_remove(&l->in);
    rs_conn_free(l->conn);
    if (l->node_id && !h->closing && h->far_metrics && strcmp(l->node_id, h->node_id) == 0)
        rs_far_metrics_node_gone(h->far_metrics);
    if (l->node_id && !h->closing)
        rs_head_logs_node_gone(h->logs, l->node_id);
    if (l->node_id && !h->closing)
        rs_controller_node_lost(h->controller, l->node_id, &l->loss, rs_clock_now());
    free(l->node_id);
    free(l);
}

static struct link *link_of(struct rs_head *h, const char *node_id)
{
    rs_list_for_each (it, &h->links) {
        struct link *l = rs_container_of(it, struct link, in);

        if (l->node_id && strcmp(l->node_id, node_id) == 0)
            return l;
    }
    return NULL;
}

static void refuse(struct link *l, const char *why)
{
    rs_auto(rs_json_decrefp) json_t *msg = json_pack("{s:s, s:s}", "phase", "join", "error", why);

    rs_log_warn("node refused", "node=%s error=\"%s\"", l->node_id ? l->node_id : "?", why);
    rs_conn_send_json(l->conn, RS_MSG_FAILED, 0, msg);
    link_free(l);
}

/* 0, or -1: the node must go, `err` says why. */
static int join(struct link *l, const json_t *msg, struct rs_error *err)
{
    struct rs_head *h = l->head;
    struct rs_controller_node node = {
        .node_id = rs_json_str(msg, "node_id", NULL),
        .name = rs_json_str(msg, "name", NULL),
        .version = rs_json_str(msg, "version", ""),
        .address = rs_json_str(msg, "address", NULL),
        .resources = json_object_get(msg, "resources"),
        .labels = json_object_get(msg, "labels"),
    };
    rs_auto(rs_json_decrefp) json_t *welcome =
        json_pack("{s:s, s:i}", "cluster_id", "rserve", "report_ms", REPORT_MS);
    int64_t protocol = rs_json_int(msg, "protocol", 0);
    struct link *old;

    if (protocol != RS_WIRE_VERSION)
        return rs_error_set(err, RS_INVALID,
                            "it speaks protocol %lld, this head %d: use the same rserve",
                            (long long)protocol, RS_WIRE_VERSION);
    if (!node.node_id || !node.name)
        return rs_error_set(err, RS_INVALID, "JOIN without node_id or name");
    old = link_of(h, node.node_id);
    if (old && old != l)
        link_free(old); /* it came back before its old connection was seen to end */
    rs_conn_send_json(l->conn, RS_MSG_WELCOME, 0, welcome);
    free(l->node_id);
    l->node_id = rs_strdup(node.node_id);
    return rs_controller_node_joined(h->controller, &node, rs_clock_now(), err);
}

static void answer(struct link *l, const json_t *msg)
{
    rs_auto(rs_json_decrefp) json_t *reply =
        json_pack("{s:s, s:I, s:o}", "from", rs_json_str(msg, "from", ""), "stream",
                  (json_int_t)rs_json_int(msg, "stream", 0), "answer",
                  rs_ask(l->head, json_object_get(msg, "ask")));

    struct rs_error err = {0};

    if (rs_conn_offer_json(l->conn, RS_MSG_ANSWER_HEAD, 0, reply, &err) == 0)
        return;
    json_object_set_new(reply, "answer",
                        json_pack("{s:s, s:s}", "error", err.msg, "kind", "RayServeException"));
    rs_conn_send_json(l->conn, RS_MSG_ANSWER_HEAD, 0, reply);
}

static int on_message(struct link *l, uint8_t type, uint64_t stream, const json_t *msg,
                      struct rs_error *err)
{
    struct rs_controller *c = l->head->controller;
    int64_t now = rs_clock_now();

    l->heard_at = now;
    if (type == RS_MSG_JOIN)
        return join(l, msg, err);
    if (!l->node_id)
        return rs_error_set(err, RS_INVALID, "%s before JOIN", rs_msg_name(type));
    if (type == RS_MSG_REPORT)
        return rs_controller_report(c, l->node_id, msg, now, err);
    if (type == RS_MSG_GRAPH)
        rs_controller_graph(c, l->node_id, msg, now);
    else if (type == RS_MSG_DECISION)
        rs_controller_decision(c, l->node_id, stream, msg, now);
    else if (type == RS_MSG_CORE_UP)
        rs_controller_core(c, l->node_id, msg, now);
    else if (type == RS_MSG_FAILED)
        rs_controller_build_failed(c, l->node_id, msg, now);
    else if (type == RS_MSG_LOG_LINES)
        rs_head_logs_answered(l->head->logs, l->node_id, stream, msg);
    else if (type == RS_MSG_ASK_HEAD)
        answer(l, msg);
    else if (type == RS_MSG_METRICS && l->head->far_metrics)
        rs_far_metrics_told(l->head->far_metrics, stream, rs_json_str(msg, "text", ""));
    else
        return rs_error_set(err, RS_INVALID, "unexpected %s from a node", rs_msg_name(type));
    return 0;
}

static void on_frame(struct rs_conn *conn, struct rs_frame *f, void *arg)
{
    struct link *l = arg;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    struct rs_error err = {0};

    (void)conn;
    if (rs_frame_json(f, &msg, &err) < 0 || on_message(l, f->h.type, f->h.stream, msg, &err) < 0)
        refuse(l, err.msg);
}

static void on_close(struct rs_conn *conn, const struct rs_error *why, void *arg)
{
    struct link *l = arg;

    (void)conn;
    if (l->node_id)
        rs_log_debug("node hung up", "node=%s why=\"%s\"", l->node_id, why->msg);
    l->loss.text = why->msg;
    link_free(l);
}

static const struct rs_conn_ops conn_ops = {.on_frame = on_frame, .on_close = on_close};

int rs_head_adopt(struct rs_head *h, int fd, struct rs_error *err)
{
    struct link *l = rs_alloc(sizeof(*l));

    rs_list_init(&l->in);
    l->head = h;
    l->heard_at = rs_clock_now();
    if (rs_conn_new(&l->conn, h->loop, fd, &conn_ops, l, err) < 0) {
        free(l);
        return -1;
    }
    l->within = rs_conn_within(l->conn);
    rs_list_push_back(&h->links, &l->in);
    return 0;
}

static void on_worker(int fd, void *arg)
{
    struct rs_error err = {0};

    if (rs_head_adopt(arg, fd, &err) < 0)
        rs_log_warn("cannot take a node's connection", "error=\"%s\"", err.msg);
}

/* --- the controller's ops ------------------------------------------------------------------------ */

static void send_to(struct rs_head *h, const char *node_id, enum rs_msg type, const json_t *msg)
{
    struct link *l = link_of(h, node_id);
    struct rs_error err = {0};

    if (l && rs_conn_offer_json(l->conn, type, 0, msg, &err) < 0)
        rs_log_error("a node cannot be told what it should do", "node=%s error=\"%s\"", node_id,
                     err.msg);
}

int rs_head_tell(struct rs_head *h, const char *node_id, enum rs_msg type, uint64_t stream,
                 const json_t *msg, struct rs_error *err)
{
    struct link *l = link_of(h, node_id);

    if (!l)
        return rs_error_set(err, RS_NOT_FOUND, "node %s is away", node_id);
    return rs_conn_offer_json(l->conn, type, stream, msg, err);
}

static void send_target(const char *node_id, const json_t *target, void *arg)
{
    send_to(arg, node_id, RS_MSG_TARGET, target);
}

static void send_build(const char *node_id, const json_t *build, void *arg)
{
    send_to(arg, node_id, RS_MSG_BUILD, build);
}

static void send_core(const char *node_id, const json_t *down, void *arg)
{
    struct link *l = link_of(arg, node_id);
    rs_auto(rs_json_decrefp) json_t *reply = NULL;
    struct rs_error err = {0};

    if (!l || rs_conn_offer_json(l->conn, RS_MSG_CORE_DOWN, 0, down, &err) == 0)
        return;
    reply = json_pack("{s:s, s:I, s:{s:s, s:s}}", "to", rs_json_str(down, "to", ""), "stream",
                      (json_int_t)rs_json_int(down, "stream", 0), "msg", "kind", "RuntimeError",
                      "error", err.msg);
    rs_conn_send_json(l->conn, RS_MSG_CORE_DOWN, 0, reply);
}

static void send_policy(const char *node_id, uint64_t question, const json_t *msg, void *arg)
{
    struct link *l = link_of(arg, node_id);
    struct rs_error err = {0};

    if (l && rs_conn_offer_json(l->conn, RS_MSG_POLICY, question, msg, &err) < 0)
        rs_log_warn("an autoscaling policy is not asked", "node=%s error=\"%s\"", node_id, err.msg);
}

/* --- output of replicas --------------------------------------------------------------------------- */

static void each_node(void (*fn)(const char *node_id, void *to), void *to, void *arg)
{
    struct rs_head *h = arg;

    rs_list_for_each (it, &h->links) {
        const struct link *l = rs_container_of(it, struct link, in);

        if (l->node_id)
            fn(l->node_id, to);
    }
}

static void ask_logs(const char *node_id, uint64_t stream, const json_t *msg, void *arg)
{
    struct link *l = link_of(arg, node_id);

    if (l)
        rs_conn_send_json(l->conn, RS_MSG_LOGS, stream, msg);
}

static bool knows_app(const char *app, void *arg)
{
    const struct rs_head *h = arg;
    struct rs_controller_summary all;
    bool known = false;

    rs_controller_summary(h->controller, &all);
    for (size_t i = 0; i < all.n_apps && !known; i++)
        known = strcmp(all.apps[i].name, app) == 0;
    rs_controller_summary_fini(&all);
    return known;
}

static const struct rs_head_logs_ops logs_ops = {each_node, ask_logs, knows_app};

/* --- events ---------------------------------------------------------------------------------------- */

static void on_event(const struct rs_controller_event *e, void *arg)
{
    struct rs_head *h = arg;

    if (e->kind == RS_EVENT_SCALE && strcmp(e->status, "POLICY") == 0)
        rs_log_warn("autoscaler", "message=\"%s\"", e->text);
    else if (e->kind == RS_EVENT_SCALE)
        rs_log_info("autoscaler", "message=\"%s\"", e->text);
    h->changed |= e->kind == RS_EVENT_SCALE ||
                  (e->kind == RS_EVENT_DEPLOY && strcmp(e->status, "RUNS") == 0) ||
                  (e->kind == RS_EVENT_ROLLOUT && strcmp(e->status, "STEP") != 0);
    rs_head_note_order(h, e);
    rs_happened_add(h->happened, e);
    if (h->ops.on_event)
        h->ops.on_event(e, h->arg);
}

static const struct rs_controller_ops controller_ops = {
    .target = send_target,
    .build = send_build,
    .policy = send_policy,
    .core = send_core,
    .event = on_event,
};

int rs_head_open_http(struct rs_head *h, struct rs_config *c, const char *default_host,
                      struct rs_error *err)
{
    const char *host = c->http.host ? c->http.host : default_host;
    uint16_t port = 0;

    if (rs_config_set_host(c, host, err) < 0 || h->ops.listen(c, &port, h->arg, err) < 0 ||
        rs_config_set_port(c, port, err) < 0)
        return -1;
    h->http_port = port;
    free(h->http_host);
    h->http_host = rs_strdup(c->http.host);
    return 0;
}

/* --- life ---------------------------------------------------------------------------------------- */

/* Nodes report every second; one that is silent for long is as good as gone. */
static void drop_silent(struct rs_head *h, int64_t now)
{
    rs_list_for_each (it, &h->links) {
        struct link *l = rs_container_of(it, struct link, in);

        if (!l->within && now - l->heard_at > SILENT_MS * RS_MS) {
            rs_log_warn("node is silent", "node=%s seconds=%d", l->node_id ? l->node_id : "?",
                        SILENT_MS / 1000);
            l->loss.silent = now - l->heard_at;
            l->loss.limit = SILENT_MS * RS_MS;
            link_free(l);
            return; /* the list may have changed; the next turn goes on */
        }
    }
}

/* While this process did not run (stopped, or busy for long), nobody could be heard. */
static void forgive(struct rs_head *h, int64_t now)
{
    int64_t gap = now - h->turned_at;

    if (h->turned_at && gap > 2 * LOOK_MS * RS_MS) {
        rs_list_for_each (it, &h->links) {
            struct link *l = rs_container_of(it, struct link, in);

            l->heard_at = l->heard_at + gap < now ? l->heard_at + gap : now;
        }
    }
    h->turned_at = now;
}

/* Nodes of other processes. */
static bool has_guests(const struct rs_head *h)
{
    rs_list_for_each (it, &h->links) {
        if (!rs_container_of(it, struct link, in)->within)
            return true;
    }
    return false;
}

static int64_t on_turn(struct rs_after *a)
{
    struct rs_head *h = rs_container_of(a, struct rs_head, hook);
    int64_t now = rs_clock_now(), deadline, happened;

    forgive(h, now);
    drop_silent(h, now);
    rs_controller_set_wall(h->controller, rs_clock_wall() - (double)now / 1e9);
    if (rs_controller_deadline(h->controller) <= now)
        rs_controller_tick(h->controller, now);
    if (rs_controller_forecasts_revision(h->controller) != h->forecasts_revision) {
        h->forecasts_revision = rs_controller_forecasts_revision(h->controller);
        h->changed = true;
    }
    if (h->changed)
        keep_quietly(h);
    happened = rs_happened_turn(h->happened, now);
    deadline = rs_controller_deadline(h->controller);
    if (happened < deadline)
        deadline = happened;
    if (has_guests(h) && deadline > now + LOOK_MS * RS_MS)
        deadline = now + LOOK_MS * RS_MS;
    if (deadline == INT64_MAX)
        return -1;
    return deadline > now ? deadline - now : 0;
}

static void note_start(struct rs_head *h)
{
    rs_auto(rs_freep) char *text = rs_asprintf("rserve %s, pid %d", rs_version(), (int)getpid());
    const char *aside = h->saved ? rs_saved_aside(h->saved) : NULL;

    rs_happened_add(h->happened, &(struct rs_controller_event){
                                     .kind = RS_EVENT_HEAD, .status = "STARTED", .text = text});
    if (aside)
        rs_happened_add(h->happened, &(struct rs_controller_event){.kind = RS_EVENT_STORE,
                                                                   .status = "MOVED_ASIDE",
                                                                   .cause = "unusable",
                                                                   .text = aside});
}

int rs_head_new(struct rs_head **ret, struct rs_loop *loop, const struct rs_head_conf *conf,
                struct rs_metrics *metrics, const struct rs_head_ops *ops, void *arg,
                struct rs_error *err)
{
    rs_auto(rs_head_freep) struct rs_head *h = rs_alloc(sizeof(*h));
    struct rs_controller_conf controller = {
        .wall_offset_s = rs_clock_wall() - (double)rs_clock_now() / 1e9,
        .node_id = conf->node_id,
        .node_ip = "127.0.0.1",
    };
    struct rs_api_conf api = {
        .host = conf->dashboard_host,
        .port = conf->dashboard_port,
        .listening = conf->rest_listening,
        .token = getenv("RSERVE_TOKEN"),
        .metrics = metrics,
        .version = rs_version(),
        .commit = rs_commit(),
        .session = conf->node_id,
        .driver_socket = conf->driver_socket,
    };

    h->loop = loop;
    h->ops = *ops;
    h->arg = arg;
    h->app_dir = rs_strdup(conf->app_dir);
    h->http_host = rs_strdup(conf->http_host);
    h->values_dir = rs_strdup(conf->values_dir);
    h->later_host = rs_strdup(conf->later_http_host);
    h->http_port = conf->http_port;
    h->metrics = metrics;
    h->node_id = rs_strdup(conf->node_id);
    if (conf->asks_for_metrics)
        h->far_metrics = rs_far_metrics_new(loop, &rs_head_far_metrics_ops, h);
    h->has_gauges = metrics != NULL;
    if (metrics)
        rs_gauges_init(&h->gauges, metrics);
    rs_list_init(&h->links);
    h->logs = rs_head_logs_new(loop, &logs_ops, h);
    rs_list_init(&h->hook.link);
    if (rs_controller_new(&h->controller, &controller, &controller_ops, h, err) < 0 ||
        rs_api_new(&h->api, loop, &api, &rs_head_api_ops, h, err) < 0)
        return -1;
    if (conf->join && rs_listener_new(&h->joins, loop, conf->join, on_worker, h, err) < 0)
        return -1;
    if (conf->join_listening > 0 &&
        rs_listener_on(&h->joins, loop, conf->join_listening, on_worker, h, err) < 0)
        return -1;
    if (conf->keep_dir &&
        rs_saved_open(&h->saved, conf->keep_dir, conf->values_dir, conf->forget, err) < 0)
        return -1;
    rs_happened_new(&h->happened, h->saved ? rs_saved_records(h->saved) : NULL);
    note_start(h);
    h->hook.fn = on_turn;
    rs_after_add(loop, &h->hook);
    *ret = rs_steal(h);
    return 0;
}

void rs_head_free(struct rs_head *h)
{
    if (!h)
        return;
    h->closing = true;
    rs_after_remove(&h->hook);
    rs_api_free(h->api);
    rs_far_metrics_free(h->far_metrics);
    rs_listener_free(h->joins);
    while (!rs_list_empty(&h->links))
        link_free(rs_container_of(h->links.next, struct link, in));
    rs_head_logs_free(h->logs);
    rs_controller_free(h->controller);
    rs_happened_free(h->happened);
    rs_saved_free(h->saved);
    json_decref(h->orders);
    free(h->node_id);
    free(h->app_dir);
    free(h->http_host);
    free(h->later_host);
    free(h->values_dir);
    free(h);
}

/* HTTP options do not change while the process runs, as in Ray: what is told is what is so. */
int rs_head_apply(struct rs_head *h, struct rs_config *config, struct rs_error *err)
{
    if (h->http_port && (rs_config_set_host(config, h->http_host, err) < 0 ||
                         rs_config_set_port(config, h->http_port, err) < 0)) {
        rs_config_free(config);
        return -1;
    }
    if (rs_controller_apply(h->controller, config, rs_clock_now(), err) < 0)
        return -1;
    return rs_head_keep(h, err);
}

void rs_head_who(struct rs_head *h, const char *who)
{
    rs_controller_who(h->controller, who);
}

int rs_head_put(struct rs_head *h, struct rs_config *config, struct rs_error *err)
{
    if (h->app_dir && rs_config_default_app_dir(config, h->app_dir, err) < 0) {
        rs_config_free(config);
        return -1;
    }
    if (rs_controller_put(h->controller, config, rs_clock_now(), err) < 0)
        return -1;
    return rs_head_keep(h, err);
}

bool rs_head_delete(struct rs_head *h, const char *app)
{
    bool existed = rs_controller_delete(h->controller, app, rs_clock_now());

    keep_quietly(h);
    return existed;
}

void rs_head_delete_all(struct rs_head *h)
{
    rs_controller_delete_all(h->controller, rs_clock_now());
    keep_quietly(h);
}

json_t *rs_head_details(const struct rs_head *h)
{
    return rs_controller_details(h->controller, false, rs_clock_now());
}

const char *rs_head_values_dir(const struct rs_head *h)
{
    return h->values_dir;
}

json_t *rs_head_http(const struct rs_head *h)
{
    if (!h->http_port)
        return json_null();
    return json_pack("{s:s, s:i}", "host", h->http_host, "port", h->http_port);
}

int rs_head_start_http(struct rs_head *h, struct rs_config *config, json_t **http,
                       struct rs_error *err)
{
    rs_auto(rs_config_freep) struct rs_config *c = config;

    if (!h->http_port && c->proxy_location != RS_PROXY_DISABLED) {
        if (rs_head_open_http(h, c, h->later_host ? h->later_host : "127.0.0.1", err) < 0)
            return -1;
        rs_controller_start(h->controller, rs_steal(c));
    }
    *http = rs_head_http(h);
    return 0;
}

void rs_head_collect(struct rs_head *h)
{
    rs_head_api_ops.collect(h);
}

const struct rs_controller *rs_head_controller(const struct rs_head *h)
{
    return h->controller;
}

uint16_t rs_head_port(const struct rs_head *h)
{
    return rs_api_port(h->api);
}

void rs_head_join_address(const struct rs_head *h, char *out, size_t size)
{
    struct rs_address at;

    out[0] = '\0';
    if (!h->joins)
        return;
    rs_listener_address(h->joins, &at);
    rs_address_print(&at, out, size);
}
