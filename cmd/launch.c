#include "cmd/launch.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/config/deployment.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHILD_FD = 3 };

void rs_launch_init(struct rs_launch_conf *c, const char *python, const char *python_zip,
                    const char *run_dir)
{
    *c = (struct rs_launch_conf){
        .python = rs_strdup(python ? python : "python3"),
        .python_zip = rs_strdup(python_zip),
        .run_dir = rs_strdup(run_dir),
    };
}

static void launched_free(struct rs_launched *w)
{
    if (!w)
        return;
    if (w->socket_path)
        unlink(w->socket_path);
    free(w->socket_path);
    free(w);
}

void rs_launch_fini(struct rs_launch_conf *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->where); i++)
        launched_free(rs_map_at(&c->where, i, NULL));
    rs_map_fini(&c->where);
    free(c->python);
    free(c->python_zip);
    free(c->run_dir);
}

void rs_launch_note(struct rs_launch_conf *c, const char *replica_id, struct rs_launched *where)
{
    if (where->port || where->socket_path)
        launched_free(rs_map_put(&c->where, replica_id, rs_memdup(where, sizeof(*where))));
}

const struct rs_launched *rs_launch_where(const struct rs_launch_conf *c, const char *replica_id)
{
    return rs_map_get(&c->where, replica_id);
}

void rs_launch_forget(struct rs_launch_conf *c, const char *replica_id)
{
    launched_free(rs_map_remove(&c->where, replica_id));
}

static void env_of(struct rs_env *e, const char *const *more)
{
    rs_env_copy(e, environ);
    for (; more && *more; more++)
        rs_env_put(e, *more);
}

/* Our library comes first on Python's path, then the folders of the environment, then what the user's
 * environment says. */
static void python_env(const struct rs_launch_conf *c, const json_t *ready, struct rs_env *e)
{
    const char *path = rs_env_get(e, "PYTHONPATH");
    struct rs_buf all = {0};
    json_t *v;
    size_t i;

    rs_buf_puts(&all, c->python_zip);
    json_array_foreach (json_object_get(ready, "path"), i, v)
        rs_buf_printf(&all, ":%s", json_string_value(v));
    if (path && *path)
        rs_buf_printf(&all, ":%s", path);
    rs_env_set(e, "PYTHONPATH", rs_buf_text(&all));
    rs_env_set(e, "PYTHONUNBUFFERED", "1");
    rs_buf_fini(&all);
}

/* What the environment sets, and which of its locks a process in it is to hold. */
static void ready_env(const json_t *ready, struct rs_env *e)
{
    struct rs_buf locks = {0};
    const char *key;
    json_t *v;
    size_t i;

    json_object_foreach (json_object_get(ready, "env"), key, v)
        rs_env_set(e, key, json_string_value(v));
    json_array_foreach (json_object_get(ready, "locks"), i, v)
        rs_buf_printf(&locks, "%s%s", i ? ":" : "", json_string_value(v));
    rs_env_set(e, "RSERVE_ENV_LOCKS", i ? rs_buf_text(&locks) : NULL);
    rs_buf_fini(&locks);
}

/* The interpreter's words, then -m `module`. NULL-ended; the caller frees the array alone: the words
 * are borrowed. */
static const char **python_argv(const char *python, const json_t *ready, const char *module)
{
    const json_t *words = json_object_get(ready, "python");
    size_t n = json_array_size(words);
    const char **argv = rs_alloc((n + 4) * sizeof(*argv));
    size_t at = 0;

    for (; at < n; at++)
        argv[at] = json_string_value(json_array_get(words, at));
    if (n == 0)
        argv[at++] = python;
    argv[at++] = "-m";
    argv[at] = module;
    return argv;
}

int rs_launch_zygote(const struct rs_launch_conf *c, struct rs_keeper *k,
                     const struct rs_agent_zygote *z, int fd, pid_t *pid, struct rs_error *err)
{
    const char **argv = python_argv(z->python ? z->python : c->python, z->ready, "rserve.zygote");
    struct rs_spawn_fd pass = {fd, CHILD_FD};
    struct rs_spawn spec = {
        .argv = argv, .cwd = rs_json_str(z->ready, "cwd", z->app_dir), .fds = &pass, .n_fds = 1};
    struct rs_env env = {0};
    int r;

    env_of(&env, z->env);
    ready_env(z->ready, &env);
    python_env(c, z->ready, &env);
    rs_env_set(&env, "RSERVE_FD", "3");
    spec.env = rs_env_list(&env);
    r = rs_keeper_spawn(k, z->key, z->app, &spec, pid, err);
    rs_env_fini(&env);
    free(argv);
    return r;
}

int rs_launch_env(const struct rs_launch_conf *c, struct rs_keeper *k, const struct rs_agent_env *e,
                  int fd, pid_t *pid, struct rs_error *err)
{
    const char *argv[] = {e->python ? e->python : c->python, "-m", "rserve.env_build", NULL};
    struct rs_spawn_fd pass = {fd, CHILD_FD};
    /* Not in the user's folder, whose files would hide modules of the standard library. */
    struct rs_spawn spec = {.argv = argv, .cwd = "/", .fds = &pass, .n_fds = 1};
    struct rs_env env = {0};
    int r;

    env_of(&env, e->env);
    python_env(c, NULL, &env);
    rs_env_set(&env, "RSERVE_FD", "3");
    spec.env = rs_env_list(&env);
    r = rs_keeper_spawn(k, e->key, "runtime_env", &spec, pid, err);
    rs_env_fini(&env);
    return r;
}

int rs_launch_helper(const struct rs_launch_conf *c, struct rs_keeper *k,
                     const struct rs_launch_helper *x, int fd, struct rs_error *err)
{
    const char *module =
        strcmp(x->role, "router") == 0 ? "rserve._router_process" : "rserve._policy_process";
    const char **argv = python_argv(x->python ? x->python : c->python, x->ready, module);
    struct rs_spawn_fd pass = {fd, CHILD_FD};
    struct rs_spawn spec = {.argv = argv, .cwd = x->app_dir, .fds = &pass, .n_fds = 1};
    struct rs_env env = {0};
    const char *name;
    json_t *value;
    pid_t pid;
    int r;

    env_of(&env, NULL);
    json_object_foreach ((json_t *)(uintptr_t)x->env_vars, name, value)
        if (json_is_string(value))
            rs_env_set(&env, name, json_string_value(value));
    ready_env(x->ready, &env);
    python_env(c, x->ready, &env);
    rs_env_set(&env, "RSERVE_FD", "3");
    spec.env = rs_env_list(&env);
    r = rs_keeper_spawn(k, x->id, x->label, &spec, &pid, err);
    rs_env_fini(&env);
    free(argv);
    return r;
}

/* A port of the loopback address that is free now. */
static int free_port(uint16_t *ret, struct rs_error *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    rs_auto(rs_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        return rs_error_errno(err, errno, "cannot find a free port");
    *ret = ntohs(at.sin_port);
    return 0;
}

static bool mentions(const char *const *command, const char *what)
{
    for (; *command; command++) {
        if (strstr(*command, what))
            return true;
    }
    return false;
}

/* Chooses where an HTTP replica listens: what its command line mentions. */
static int choose_place(const struct rs_launch_conf *c, const struct rs_agent_start *s,
                        struct rs_launched *where, struct rs_error *err)
{
    if (mentions(s->conf->command, "{socket}")) {
        where->socket_path = rs_asprintf("%s/%s.sock", c->run_dir, s->replica_id);
        if (strlen(where->socket_path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
            return rs_error_set(err, RS_INVALID, "the path of a Unix socket is too long: %s",
                                where->socket_path);
        return 0;
    }
    if (s->conf->port) {
        where->port = (uint16_t)s->conf->port;
        return 0;
    }
    return free_port(&where->port, err);
}

static char *expand(const char *word, const struct rs_launched *where)
{
    struct rs_buf out = {0};

    rs_command_expand(&out, word, where->port, where->socket_path);
    return rs_buf_steal(&out);
}

/* The command's words with placeholders filled in; NULL-ended, the caller frees words and array. */
static char **command_of(const struct rs_agent_start *s, const struct rs_launched *where)
{
    size_t n = 0;
    char **argv;

    while (s->conf->command[n])
        n++;
    argv = rs_alloc((n + 1) * sizeof(*argv));
    for (size_t i = 0; i < n; i++)
        argv[i] = expand(s->conf->command[i], where);
    return argv;
}

static void argv_free(char **argv)
{
    for (size_t i = 0; argv[i]; i++)
        free(argv[i]);
    free(argv);
}

/* Placeholders work in the values of the file's env too. */
static void launch_env(const struct rs_agent_start *s, const struct rs_launched *where,
                       struct rs_env *env)
{
    size_t n = json_object_size(s->conf->env);

    for (void *it = n ? json_object_iter((json_t *)(uintptr_t)s->conf->env) : NULL; it;
         it = json_object_iter_next((json_t *)(uintptr_t)s->conf->env, it)) {
        const char *value = json_string_value(json_object_iter_value(it));
        rs_auto(rs_freep) char *text = expand(value ? value : "", where);

        rs_env_set(env, json_object_iter_key(it), text);
    }
}

int rs_launch_replica(const struct rs_launch_conf *c, struct rs_keeper *k,
                      const struct rs_agent_start *s, const char *label, int fd,
                      struct rs_launched *where, pid_t *pid, struct rs_error *err)
{
    const char **python = NULL;
    struct rs_spawn_fd pass = {fd, CHILD_FD};
    struct rs_spawn spec = {.cwd = s->app_dir};
    struct rs_env env = {0};
    char **argv = NULL;
    int r;

    if (s->conf->kind != RS_KIND_PYTHON && (!s->conf->command || !s->conf->command[0]))
        return rs_error_set(err, RS_INVALID, "deployment %s has an empty command", s->deployment);
    if (s->conf->kind == RS_KIND_HTTP && choose_place(c, s, where, err) < 0)
        return -1;
    env_of(&env, s->env);
    if (s->conf->kind == RS_KIND_PYTHON) {
        python = python_argv(s->python ? s->python : c->python, s->ready, "rserve.replica");
        spec.argv = python;
        ready_env(s->ready, &env);
        python_env(c, s->ready, &env);
    } else {
        argv = command_of(s, where);
        spec.argv = (const char *const *)argv;
        spec.cwd = s->conf->cwd ? s->conf->cwd : s->app_dir;
        launch_env(s, where, &env);
    }
    if (fd >= 0) {
        spec.fds = &pass;
        spec.n_fds = 1;
        rs_env_set(&env, "RSERVE_FD", "3");
    }
    spec.env = rs_env_list(&env);
    r = rs_keeper_spawn(k, s->replica_id, label, &spec, pid, err);
    rs_env_fini(&env);
    free(python);
    if (argv)
        argv_free(argv);
    return r;
}
