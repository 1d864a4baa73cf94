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

/* Our library comes first on Python's path, then what the user's environment says. */
static void python_env(const struct rs_launch_conf *c, struct rs_env *e)
{
    const char *path = rs_env_get(e, "PYTHONPATH");
    rs_auto(rs_freep) char *both =
        rs_asprintf("%s%s%s", c->python_zip, path && *path ? ":" : "", path && *path ? path : "");

    rs_env_set(e, "PYTHONPATH", both);
    rs_env_set(e, "PYTHONUNBUFFERED", "1");
}

int rs_launch_zygote(const struct rs_launch_conf *c, struct rs_keeper *k,
                     const struct rs_agent_zygote *z, int fd, pid_t *pid, struct rs_error *err)
{
    const char *argv[] = {z->python ? z->python : c->python, "-m", "rserve.zygote", NULL};
    struct rs_spawn_fd pass = {fd, CHILD_FD};
    struct rs_spawn spec = {.argv = argv, .cwd = z->app_dir, .fds = &pass, .n_fds = 1};
    struct rs_env env = {0};
    int r;

    env_of(&env, z->env);
    python_env(c, &env);
    rs_env_set(&env, "RSERVE_FD", "3");
    spec.env = rs_env_list(&env);
    r = rs_keeper_spawn(k, z->key, z->app, &spec, pid, err);
    rs_env_fini(&env);
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
    const char *python[] = {s->python ? s->python : c->python, "-m", "rserve.replica", NULL};
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
        spec.argv = python;
        python_env(c, &env);
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
    if (argv)
        argv_free(argv);
    return r;
}
