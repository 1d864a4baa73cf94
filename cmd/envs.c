#include "cmd/envs.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "net/wire/conn.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LAST_WORD_MS = 500 }; /* for what a dead process had written */

struct rs_envs {
    struct rs_loop *loop;
    const struct rs_launch_conf *launch;
    struct rs_keeper *keeper;
    struct rs_agent *agent;
    struct rs_map builders; /* key -> struct builder */
};

/* What it last said may still be on its way when its process is seen to end: the end is told after
 * the connection's, or a little later. */
struct builder {
    struct rs_envs *envs;
    char *key;
    struct rs_conn *conn; /* NULL: hung up */
    bool ended;
    int status;
    char *output;
    struct rs_timer late;
};

static void builder_free(struct builder *b)
{
    if (!b)
        return;
    rs_timer_stop(&b->late);
    rs_conn_free(b->conn);
    free(b->key);
    free(b->output);
    free(b);
}

struct rs_envs *rs_envs_new(struct rs_loop *loop, const struct rs_launch_conf *launch,
                            struct rs_keeper *keeper, struct rs_agent *agent)
{
    struct rs_envs *v = rs_alloc(sizeof(*v));

    v->loop = loop;
    v->launch = launch;
    v->keeper = keeper;
    v->agent = agent;
    return v;
}

void rs_envs_free(struct rs_envs *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < rs_map_slots(&v->builders); i++)
        builder_free(rs_map_at(&v->builders, i, NULL));
    rs_map_fini(&v->builders);
    free(v);
}

static void tell_end(struct builder *b)
{
    struct rs_envs *v = b->envs;

    rs_map_remove(&v->builders, b->key);
    rs_agent_env_exited(v->agent, b->key, b->status, b->output, rs_clock_now());
    builder_free(b);
}

static int on_late(struct rs_timer *t)
{
    tell_end(rs_container_of(t, struct builder, late));
    return 0;
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct builder *b = arg;
    struct rs_envs *v = b->envs;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    int64_t now = rs_clock_now();
    struct rs_error err = {0};

    (void)c;
    if (rs_frame_json(f, &msg, &err) == 0) {
        switch (f->h.type) {
        case RS_MSG_ENV_PROGRESS:
            rs_log_debug("environment", "id=%s step=\"%s\"", b->key, rs_json_str(msg, "text", ""));
            rs_agent_env_progress(v->agent, b->key, msg, now);
            return;
        case RS_MSG_ENV_READY:
            rs_agent_env_ready(v->agent, b->key, msg, now);
            return;
        case RS_MSG_FAILED:
            rs_agent_env_failed(v->agent, b->key, msg, now);
            return;
        default:
            rs_error_set(&err, RS_INVALID, "unexpected %s", rs_msg_name(f->h.type));
        }
    }
    rs_log_warn("a builder of environments does not keep to the protocol", "id=%s error=\"%s\"",
                b->key, err.msg);
    rs_keeper_kill(v->keeper, b->key, SIGKILL);
}

static void on_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    struct builder *b = arg;

    (void)why;
    rs_conn_free(c);
    b->conn = NULL;
    if (b->ended)
        tell_end(b);
}

static const struct rs_conn_ops conn_ops = {.on_frame = on_frame, .on_close = on_close};

int rs_envs_start(struct rs_envs *v, const struct rs_agent_env *e, pid_t *pid, struct rs_error *err)
{
    struct builder *b;
    int fds[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    r = rs_launch_env(v->launch, v->keeper, e, fds[1], pid, err);
    close(fds[1]);
    if (r < 0) {
        close(fds[0]);
        return -1;
    }
    b = rs_alloc(sizeof(*b));
    b->envs = v;
    b->key = rs_strdup(e->key);
    b->late.fn = on_late;
    if (rs_conn_new(&b->conn, v->loop, fds[0], &conn_ops, b, err) < 0) {
        rs_keeper_kill(v->keeper, e->key, SIGKILL);
        builder_free(b);
        return -1;
    }
    builder_free(rs_map_put(&v->builders, e->key, b));
    rs_conn_send_json(b->conn, RS_MSG_BUILD, 0, e->ask);
    return 0;
}

bool rs_envs_exited(struct rs_envs *v, const char *id, int status, const char *output)
{
    struct builder *b = rs_map_get(&v->builders, id);

    if (!b)
        return false;
    b->ended = true;
    b->status = status;
    b->output = rs_strdup(output);
    /* Told in a later turn in any case: the name is in use until this call returns. */
    rs_timer_start(&b->late, v->loop, rs_clock_now() + (b->conn ? LAST_WORD_MS * RS_MS : 0));
    return true;
}
