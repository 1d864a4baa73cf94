/* serve build: from import paths to a configuration file. A Python process imports the applications
 * (sched/pyruntime/rserve/_build.py) and says what they consist of; the file is written here.
 */
#include "cmd/serve_cli.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/config/emit.h"
#include "sched/pyruntime/pyruntime.h"
#include "sched/supervise/spawn.h"
#include "sched/supervise/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { RESULT_FD = 3 };

struct build_options {
    const char *app_dir, *output, *python;
    struct rs_opt_list grpc_functions;
    bool no_reflection;
};

static const struct rs_option build_options[] = {
    {"app-dir", 'd', RS_OPT_STRING, offsetof(struct build_options, app_dir), "DIR",
     "where modules are imported from (default: the working directory)"},
    {"output-path", 'o', RS_OPT_STRING, offsetof(struct build_options, output), "FILE",
     "write to this .yaml file (default: standard output)"},
    {"grpc-servicer-functions", 0, RS_OPT_LIST, offsetof(struct build_options, grpc_functions),
     "PATH", "goes into grpc_options"},
    {"grpc-disable-reflection", 0, RS_OPT_FLAG, offsetof(struct build_options, no_reflection), NULL,
     "enable_reflection: false in grpc_options"},
    {"python", 0, RS_OPT_STRING, offsetof(struct build_options, python), "PATH",
     "Python interpreter that imports (default python3)"},
    {"grpc-enable-reflection", 0, RS_OPT_IGNORED_FLAG},
    {NULL},
};

/* --- the process that imports -------------------------------------------------------------------- */

struct importing {
    struct rs_child child;
    struct rs_loop *loop;
    int status;
};

static void on_exit_of(struct rs_child *child, int status)
{
    struct importing *i = rs_container_of(child, struct importing, child);

    i->status = status;
    rs_loop_stop(i->loop);
}

static void set_environment(struct rs_env *env, const char *zip)
{
    const char *path;
    rs_auto(rs_freep) char *both = NULL;

    rs_env_copy(env, environ);
    path = rs_env_get(env, "PYTHONPATH");
    both = rs_asprintf("%s%s%s", zip, path && *path ? ":" : "", path && *path ? path : "");
    rs_env_set(env, "PYTHONPATH", both);
    rs_env_set(env, "RSERVE_FD", "3");
}

static int run_python(const char *const *argv, const char *zip, int result, struct rs_error *err)
{
    rs_auto(rs_loop_freep) struct rs_loop *loop = NULL;
    const struct rs_spawn_fd fds[] = {{STDERR_FILENO, 1}, {STDERR_FILENO, 2}, {result, RESULT_FD}};
    struct rs_spawn spec = {.argv = argv, .fds = fds, .n_fds = RS_COUNT(fds)};
    struct importing i = {.child.on_exit = on_exit_of};
    struct rs_env env = {0};
    char text[64];
    int r;

    if (rs_loop_new(&loop, err) < 0)
        return -1;
    i.loop = loop;
    set_environment(&env, zip);
    spec.env = rs_env_list(&env);
    r = rs_spawn(&i.child, loop, &spec, err);
    if (r == 0)
        r = rs_loop_run(loop);
    rs_env_fini(&env);
    if (r < 0 || (WIFEXITED(i.status) && WEXITSTATUS(i.status) == 0))
        return r;
    if (WIFEXITED(i.status) && WEXITSTATUS(i.status) == 1)
        return rs_error_set(err, RS_SYSTEM,
                            "nothing was built: the application cannot be imported");
    rs_exit_text(i.status, text, sizeof(text));
    return rs_error_set(err, RS_SYSTEM, "nothing was built: the process that imports %s", text);
}

static int read_result(int fd, json_t **ret, struct rs_error *err)
{
    struct stat st;
    void *data;
    int r;

    if (fstat(fd, &st) < 0 || st.st_size == 0)
        return rs_error_set(err, RS_SYSTEM, "the process that imports ended without an answer");
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return rs_error_errno(err, errno, "mmap");
    r = rs_json_parse(ret, data, (size_t)st.st_size, "the answer of rserve._build", err);
    munmap(data, (size_t)st.st_size);
    return r;
}

/* argv[1..n] are import paths. */
static int import_all(const struct build_options *o, int n, char *argv[], json_t **ret,
                      struct rs_error *err)
{
    const char **words = rs_alloc(((size_t)n + 5) * sizeof(*words));
    rs_auto(rs_freep) char *zip = NULL;
    rs_auto(rs_closep) int fd = memfd_create("rserve-build", MFD_CLOEXEC);
    int r = -1;

    words[0] = o->python ? o->python : "python3";
    words[1] = "-m";
    words[2] = "rserve._build";
    words[3] = o->app_dir ? o->app_dir : ".";
    for (int i = 1; i <= n; i++)
        words[3 + i] = argv[i];
    if (fd < 0)
        rs_error_errno(err, errno, "memfd_create");
    else if (rs_statedir_install("rserve.zip", rs_pyruntime_zip, rs_pyruntime_zip_size, &zip,
                                 err) == 0 &&
             run_python(words, zip, fd, err) == 0)
        r = read_result(fd, ret, err);
    free(words);
    return r;
}

/* --- the file ------------------------------------------------------------------------------------ */

/* Members of the document, each on its own, with a blank line between them. */
static void put_member(struct rs_buf *out, const char *key, json_t *value)
{
    rs_auto(rs_json_decrefp) json_t *doc = json_pack("{s:o}", key, value);

    rs_buf_puts(out, "\n");
    rs_yaml_dump(out, doc);
}

static json_t *application(json_t *found, size_t i, size_t count)
{
    rs_auto(rs_freep) char *name = rs_asprintf("app%zu", i + 1);
    rs_auto(rs_freep) char *prefix = count == 1 ? rs_strdup("/") : rs_asprintf("/%s", name);

    return json_pack("{s:s, s:s, s:O, s:{}, s:O}", "name", name, "route_prefix", prefix,
                     "import_path", json_object_get(found, "import_path"), "runtime_env",
                     "deployments", json_object_get(found, "deployments"));
}

static void print_file(const struct build_options *o, const json_t *found, struct rs_buf *out)
{
    const json_t *list = json_object_get(found, "applications");
    json_t *applications = json_array(), *functions = json_array();
    json_t *one;
    size_t i;

    json_array_foreach (list, i, one)
        json_array_append_new(applications, application(one, i, json_array_size(list)));
    for (i = 0; i < o->grpc_functions.count; i++)
        json_array_append_new(functions, json_string(o->grpc_functions.items[i]));
    rs_buf_printf(
        out,
        "# This file was generated using the `serve build` command on Ray v" RS_RAY_VERSION
        " (rserve %s).\n",
        rs_version());
    put_member(out, "proxy_location", json_string("EveryNode"));
    put_member(out, "http_options", json_pack("{s:s, s:i}", "host", "0.0.0.0", "port", 8000));
    put_member(out, "grpc_options",
               json_pack("{s:i, s:o, s:b}", "port", 9000, "grpc_servicer_functions", functions,
                         "enable_reflection", !o->no_reflection));
    put_member(out, "logging_config",
               json_pack("{s:s, s:s, s:n, s:b, s:[]}", "encoding", "TEXT", "log_level", "INFO",
                         "logs_dir", "enable_access_log", 1, "additional_log_standard_attrs"));
    put_member(out, "applications", applications);
}

static bool ends_in_yaml(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static int write_file(const char *path, const struct rs_buf *text, struct rs_error *err)
{
    FILE *f = fopen(path, "we");
    bool bad;

    if (!f)
        return rs_error_errno(err, errno, "cannot write '%s'", path);
    bad = fwrite(rs_buf_text(text), 1, rs_buf_len(text), f) != rs_buf_len(text);
    if (fclose(f) != 0 || bad)
        return rs_error_errno(err, errno, "cannot write '%s'", path);
    return 0;
}

static int run_build(int argc, char *argv[], struct rs_error *err)
{
    struct build_options o = {0};
    rs_auto(rs_json_decrefp) json_t *found = NULL;
    rs_auto(rs_buf_fini) struct rs_buf out = {0};
    int n = rs_verb_parse(&rs_serve_verb_build, argc, argv, &o, err);
    int r = -1;

    if (n < 0)
        return -1;
    if (o.output && !ends_in_yaml(o.output)) {
        rs_error_set(err, RS_INVALID, "--output-path: expected a file that ends in .yaml, got '%s'",
                     o.output);
    } else if (import_all(&o, n, argv, &found, err) == 0) {
        print_file(&o, found, &out);
        if (o.output)
            r = write_file(o.output, &out, err);
        else
            r = fwrite(rs_buf_text(&out), 1, rs_buf_len(&out), stdout) > 0 ? 0 : RS_EXIT_FAILED;
    }
    rs_options_fini(build_options, &o);
    return r;
}

const struct rs_verb rs_serve_verb_build = {
    .of = "serve",
    .name = "build",
    .args = "IMPORT_PATH...",
    .summary = "write the configuration file of applications",
    .details =
        "IMPORT_PATH is module:application. The file lists every deployment with the options "
        "that its code sets; change them there and serve it with 'serve run FILE' or 'serve "
        "deploy FILE'.",
    .min_args = 1,
    .max_args = -1,
    .options = build_options,
    .run = run_build,
};
