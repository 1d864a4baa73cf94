#include "cmd/helpers.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "net/wire/conn.h"
#include "sched/supervise/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE_FIRST (200 * RS_MS)
#define PAUSE_MAX (10 * RS_SEC)
#define HANGS (10 * RS_SEC) /* without an answer for so long it is killed */

struct helper {
    struct rs_helpers *all;
    char *id, *role, *app; /* id: "role:application", its name among the processes */
    char *key;             /* of the code that it was made from */
    char *zygote;          /* that was asked to fork it; NULL: none was */
    struct rs_conn *conn;  /* NULL: none */
    bool wanted;           /* also before it is asked */
    bool process;          /* there is one, or one is being forked */
    unsigned owed;         /* answers */
    int64_t silent_since;  /* with answers owed */
    int64_t retry_at;
    unsigned failures; /* in a row */
};

struct rs_helpers {
    struct rs_helpers_conf conf;
    struct rs_helpers_ops ops;
    void *arg;
    struct rs_map by_id;
    bool stopped;
};

struct rs_helpers *rs_helpers_new(const struct rs_helpers_conf *conf,
                                  const struct rs_helpers_ops *ops, void *arg)
{
    struct rs_helpers *h = rs_alloc(sizeof(*h));

    h->conf = *conf;
    h->ops = *ops;
    h->arg = arg;
    return h;
}

static void helper_free(struct helper *x)
{
    rs_conn_free(x->conn);
    free(x->id);
    free(x->role);
    free(x->app);
    free(x->key);
    free(x->zygote);
    free(x);
}

void rs_helpers_free(struct rs_helpers *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (x)
            helper_free(x);
    }
    rs_map_fini(&h->by_id);
    free(h);
}

/* --- ends -------------------------------------------------------------------------------------- */

/* Without a word to anyone: its process is killed, its name free when that has ended. */
static void end(struct helper *x)
{
    rs_conn_free(x->conn);
    x->conn = NULL;
    x->owed = 0;
    rs_keeper_kill(x->all->conf.keeper, x->id, SIGKILL);
}

static void fail(struct helper *x, const char *why)
{
    struct rs_helpers *h = x->all;
    int64_t pause = x->failures > 5 ? PAUSE_MAX : PAUSE_FIRST << x->failures;

    end(x);
    x->failures++;
    x->retry_at = rs_clock_now() + (pause < PAUSE_MAX ? pause : PAUSE_MAX);
    rs_log_warn("user code in the control path is gone", "role=%s application=%s why=\"%s\"",
                x->role, x->app, why);
    h->ops.lost(x->role, x->app, why, h->arg);
}

static void on_close(struct rs_conn *c, const struct rs_error *why, void *arg)
{
    (void)c;
    fail(arg, why->msg);
}

static void on_frame(struct rs_conn *c, struct rs_frame *f, void *arg)
{
    struct helper *x = arg;
    rs_auto(rs_json_decrefp) json_t *msg = NULL;
    struct rs_error err = {0};

    (void)c;
    if (rs_frame_json(f, &msg, &err) < 0) {
        fail(x, err.msg);
    } else if (f->h.type == RS_MSG_CHOSEN || f->h.type == RS_MSG_DECISION) {
        x->failures = 0;
        x->owed -= x->owed > 0;
        x->silent_since = rs_clock_now();
        x->all->ops.answer(x->role, x->app, (enum rs_msg)f->h.type, f->h.stream, msg, x->all->arg);
    } else if (f->h.type != RS_MSG_HELLO) {
        rs_error_set(&err, RS_INVALID, "unexpected %s from it", rs_msg_name(f->h.type));
        fail(x, err.msg);
    }
}

static const struct rs_conn_ops conn_ops = {.on_frame = on_frame, .on_close = on_close};

/* --- starts ------------------------------------------------------------------------------------ */

/* Takes `fd`, as the next one does. */
static int fork_it(struct helper *x, const struct rs_agent_helper *what, const char *label, int fd,
                   struct rs_error *err)
{
    struct rs_helpers *h = x->all;
    rs_auto(rs_json_decrefp) json_t *msg =
        json_pack("{s:s, s:s}", "replica_id", x->id, "role", x->role);
    int out = -1, errors = -1, r;

    if (rs_keeper_expect(h->conf.keeper, x->id, label, &out, &errors, err) < 0) {
        close(fd);
        return -1;
    }
    r = h->ops.fork(what->zygote, msg, (int[]){fd, out, errors}, h->arg, err);
    if (r < 0)
        rs_keeper_forget(h->conf.keeper, x->id);
    return r;
}

static int make_process(struct helper *x, const struct rs_agent_helper *what, int fd,
                        struct rs_error *err)
{
    rs_auto(rs_freep) char *label = rs_asprintf("%s#%s", x->app, x->role);
    struct rs_launch_helper spec = {
        .id = x->id,
        .label = label,
        .role = x->role,
        .python = what->python,
        .app_dir = what->app_dir,
        .ready = what->ready,
        .env_vars = json_object_get(json_object_get(what->init, "runtime_env"), "env_vars")};

    int r;

    if (what->zygote)
        return fork_it(x, what, label, fd, err);
    r = rs_launch_helper(x->all->conf.launch, x->all->conf.keeper, &spec, fd, err);
    close(fd);
    return r;
}

static int start(struct helper *x, struct rs_error *err)
{
    struct rs_helpers *h = x->all;
    struct rs_agent_helper what = {0};
    int r = rs_agent_helper(h->conf.agent, x->app, &what, rs_clock_now(), err), fds[2];

    if (r == RS_AGENT_NOT_YET)
        return rs_error_set(err, RS_NOT_FOUND, "the application is being imported");
    if (r < 0)
        return -1;
    rs_auto(rs_json_decrefp) json_t *init = what.init;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return rs_error_errno(err, errno, "cannot create a socket pair");
    r = make_process(x, &what, fds[1], err);
    if (r < 0) {
        close(fds[0]);
        return -1;
    }
    x->process = true;
    free(x->zygote);
    x->zygote = rs_strdup(what.zygote);
    if (rs_conn_new(&x->conn, h->conf.loop, fds[0], &conn_ops, x, err) < 0) {
        x->conn = NULL;
        rs_keeper_kill(h->conf.keeper, x->id, SIGKILL);
        return -1;
    }
    free(x->key);
    x->key = rs_strdup(what.key);
    rs_conn_send_json(x->conn, RS_MSG_INIT, 0, init);
    return 0;
}

static struct helper *helper_of(struct rs_helpers *h, const char *role, const char *app)
{
    rs_auto(rs_freep) char *id = rs_asprintf("%s:%s", role, app);
    struct helper *x = rs_map_get(&h->by_id, id);

    if (x)
        return x;
    x = rs_alloc(sizeof(*x));
    x->all = h;
    x->id = rs_strdup(id);
    x->role = rs_strdup(role);
    x->app = rs_strdup(app);
    rs_map_put(&h->by_id, id, x);
    return x;
}

int rs_helpers_ask(struct rs_helpers *h, const char *role, const char *app, enum rs_msg type,
                   uint64_t stream, const json_t *msg, bool answered, struct rs_error *err)
{
    struct helper *x = helper_of(h, role, app);
    int64_t now = rs_clock_now();

    if (!x->conn) {
        if (h->stopped)
            return rs_error_set(err, RS_CONFLICT, "the node stops");
        if (x->process || now < x->retry_at)
            return rs_error_set(err, RS_CONFLICT,
                                "its process ended; it is started again in a moment");
        if (start(x, err) < 0) {
            x->retry_at = now + PAUSE_FIRST;
            return -1;
        }
    }
    if (answered && x->owed++ == 0)
        x->silent_since = now;
    rs_conn_send_json(x->conn, type, stream, msg);
    return 0;
}

void rs_helpers_want(struct rs_helpers *h, const char *role, const char *app)
{
    helper_of(h, role, app)->wanted = true;
}

static bool to_be_started(const struct helper *x)
{
    return x->wanted && !x->conn && !x->process && !x->all->stopped;
}

/* Without a word if it cannot be: who asks it is told. */
static void start_wanted(struct helper *x, int64_t now)
{
    struct rs_error err = {0};

    if (start(x, &err) == 0)
        return;
    x->retry_at = now + PAUSE_FIRST;
    x->wanted = rs_agent_knows(x->all->conf.agent, x->app);
}

/* --- what happens ------------------------------------------------------------------------------ */

bool rs_helpers_exited(struct rs_helpers *h, const char *id, int wait_status, const char *output)
{
    struct helper *x = rs_map_get(&h->by_id, id);
    char how[64];

    if (!x)
        return false;
    x->process = false;
    rs_exit_text(wait_status, how, sizeof(how));
    if (x->conn) {
        rs_auto(rs_freep) char *why = rs_asprintf("its process %s", how);

        fail(x, why);
    }
    (void)output; /* it is in the log already */
    return true;
}

void rs_helpers_zygote_exited(struct rs_helpers *h, const char *zygote)
{
    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (x && x->process && x->zygote && strcmp(x->zygote, zygote) == 0 &&
            rs_keeper_forget(h->conf.keeper, x->id))
            (void)rs_helpers_exited(h, x->id, 0, "");
    }
}

void rs_helpers_target(struct rs_helpers *h)
{
    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (!x || !x->conn || rs_agent_helper_is(h->conf.agent, x->app, x->key))
            continue;
        end(x);
        x->retry_at = 0;
        x->failures = 0;
        h->ops.lost(x->role, x->app, "the code of the application changed", h->arg);
    }
}

void rs_helpers_stop(struct rs_helpers *h)
{
    h->stopped = true;
    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (x)
            end(x);
    }
}

void rs_helpers_tick(struct rs_helpers *h, int64_t now)
{
    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (x && x->conn && x->owed && now - x->silent_since >= HANGS)
            fail(x, "it did not answer for 10 s");
        if (x && to_be_started(x) && now >= x->retry_at)
            start_wanted(x, now);
    }
}

int64_t rs_helpers_deadline(const struct rs_helpers *h)
{
    int64_t at = INT64_MAX;

    for (size_t i = 0; i < rs_map_slots(&h->by_id); i++) {
        const struct helper *x = rs_map_at(&h->by_id, i, NULL);

        if (x && x->conn && x->owed && x->silent_since + HANGS < at)
            at = x->silent_since + HANGS;
        if (x && to_be_started(x) && x->retry_at < at)
            at = x->retry_at;
    }
    return at;
}
