/* Table of a runtime_env: what is built, what is only set, and what rserve does not do. */
#include "core/config/fields.h"

#include "core/base/text.h"

#include <string.h>

/* Length of "http" in "http://host/x", 0 if there is no scheme. */
static size_t scheme_length(const char *text)
{
    const char *end = strstr(text, "://");
    size_t n = end ? (size_t)(end - text) : 0;

    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-", text[i]))
            return 0;
    return n;
}

bool rs_is_url(const char *text)
{
    return scheme_length(text) > 0;
}

static bool is_code(const struct rs_node *n, struct rs_buf *why)
{
    static const char *const known[] = {"http", "https", "file"};
    size_t len = n->kind == RS_NODE_TEXT ? scheme_length(n->text) : 0;

    if (n->kind == RS_NODE_TEXT && *n->text && len == 0)
        return true;
    for (size_t i = 0; i < RS_COUNT(known) && len > 0; i++)
        if (strlen(known[i]) == len && strncasecmp(known[i], n->text, len) == 0)
            return true;
    rs_buf_puts(why, "expected a local folder or zip, or an http://, https:// or file:// URL of a "
                     "zip, ");
    rs_node_show(why, n);
    return false;
}

static bool are_code(const struct rs_node *n, struct rs_buf *why)
{
    for (size_t i = 0; i < n->count; i++)
        if (!is_code(n->items[i], why))
            return false;
    return true;
}

static bool are_texts(const struct rs_node *n, struct rs_buf *why)
{
    for (size_t i = 0; i < n->count; i++) {
        if (n->items[i]->kind == RS_NODE_TEXT)
            continue;
        rs_buf_puts(why, "expected a list of texts, ");
        rs_node_show(why, n->items[i]);
        return false;
    }
    return true;
}

/* The mapping form: `tool` is "pip" or "uv". */
static bool is_package_map(const struct rs_node *n, const char *tool, struct rs_buf *why)
{
    static const char *const keys[] = {"packages", "_check", "_version", "_pip_install_options",
                                       "pip_install_options"};

    for (size_t i = 0; i < n->count; i++) {
        const struct rs_node_entry *e = &n->entries[i];
        const char *key = strncmp(e->key, tool, strlen(tool)) == 0 ? e->key + strlen(tool) : e->key;
        bool own = false;

        for (size_t k = 0; k < RS_COUNT(keys) && !own; k++)
            own = strcmp(keys[k], keys[k][0] == '_' ? key : e->key) == 0;
        if (own)
            continue;
        rs_text_fit(why, e->key, RS_NODE_KEY_SHOWN);
        rs_buf_printf(why,
                      ": unknown key; known are packages, %s_check, %s_version and "
                      "pip_install_options",
                      tool, tool);
        return false;
    }
    if (rs_node_get(n, "packages"))
        return true;
    rs_buf_puts(why, "expected the key packages");
    return false;
}

static bool are_packages(const struct rs_node *n, const char *tool, struct rs_buf *why)
{
    if (n->kind == RS_NODE_TEXT && *n->text)
        return true;
    if (n->kind == RS_NODE_LIST)
        return are_texts(n, why);
    if (n->kind == RS_NODE_MAP)
        return is_package_map(n, tool, why);
    rs_buf_puts(why, "expected a list of packages, the path of a requirements file, or a mapping "
                     "with packages, ");
    rs_node_show(why, n);
    return false;
}

static bool are_pip_packages(const struct rs_node *n, struct rs_buf *why)
{
    return are_packages(n, "pip", why);
}

static bool are_uv_packages(const struct rs_node *n, struct rs_buf *why)
{
    return are_packages(n, "uv", why);
}

static bool is_conda(const struct rs_node *n, struct rs_buf *why)
{
    if ((n->kind == RS_NODE_TEXT && *n->text) || n->kind == RS_NODE_MAP)
        return true;
    rs_buf_puts(why, "expected the name of an environment, the path of a .yml file, or its "
                     "content as a mapping, ");
    rs_node_show(why, n);
    return false;
}

static bool is_executable(const struct rs_node *n, struct rs_buf *why)
{
    rs_auto(rs_json_decrefp) json_t *words = rs_command_split(n->text);

    if (json_array_size(words) > 0)
        return true;
    rs_buf_puts(why, "expected an interpreter, with arguments if need be, ");
    rs_node_show(why, n);
    return false;
}

static bool is_hook(const struct rs_node *n, struct rs_buf *why)
{
    if (rs_import_path_is_valid(n->text))
        return true;
    rs_buf_puts(why, "expected \"module.function\", ");
    rs_node_show(why, n);
    return false;
}

static bool is_timeout(const struct rs_node *n, struct rs_buf *why)
{
    if (n->real == -1 || n->real >= 1)
        return true;
    rs_buf_puts(why, "expected -1 (no limit) or a number of seconds >= 1, ");
    rs_node_show(why, n);
    return false;
}

bool rs_is_runtime_env(const struct rs_node *n, struct rs_buf *why)
{
    static const char *const tools[] = {"pip", "uv", "conda"};
    const char *first = NULL;

    for (size_t i = 0; i < RS_COUNT(tools); i++) {
        const struct rs_node_entry *e = rs_node_get(n, tools[i]);

        if (!e || e->value->kind == RS_NODE_NULL)
            continue;
        if (first) {
            rs_buf_printf(why, "%s and %s exclude each other; keep one of them", first, tools[i]);
            return false;
        }
        first = tools[i];
    }
    return true;
}

static const struct rs_field config_fields[] = {
    {"setup_timeout_seconds", RS_TYPE_INT, .def = "600", .min = -1, .max = 1e9, .check = is_timeout,
     .help = "Until then the environment must be built; -1: no limit."},
    {"eager_install", RS_TYPE_BOOL, .def = "true",
     .help = "Accepted; rserve builds an environment when something is to run in it."},
    {"log_files", RS_TYPE_ANY, .flags = RS_F_NULL | RS_F_INERT, .help = "Of Ray."},
};
const struct rs_object rs_object_runtime_config =
    RS_OBJECT("runtime_env.config", "How the environment is built.", config_fields, true);

#define NOT_DONE(key, why)                                                                         \
    {                                                                                              \
        key, RS_TYPE_ANY, .flags = RS_F_FORBIDDEN, .help = why                                     \
    }
#define CONTAINERS                                                                                 \
    "rserve does not start containers; run rserve itself in the image, or use pip, conda or "      \
    "py_executable"
#define PROFILERS "rserve does not start replicas under a profiler"

static const struct rs_field runtime_fields[] = {
    {"env_vars", RS_TYPE_TEXTS, .flags = RS_F_NULL,
     .help =
         "Set before the interpreter starts; ${NAME} is the value in rserve's own environment."},
    {"working_dir", RS_TYPE_TEXT, .flags = RS_F_NULL, .check = is_code,
     .help =
         "Where replicas run and what comes first on sys.path: a folder (used in place) or zip, "
         "relative to the file, or the URL of a zip."},
    {"py_modules", RS_TYPE_LIST, RS_TYPE_TEXT, .flags = RS_F_NULL, .check = are_code,
     .help = "Modules that can be imported: folders, .py files, zips, wheels, URLs of zips."},
    {"excludes", RS_TYPE_LIST, RS_TYPE_TEXT, .flags = RS_F_NULL,
     .help = "What is left out of working_dir and py_modules, as in a .gitignore; then a copy is "
             "used."},
    {"pip", RS_TYPE_ANY, .flags = RS_F_NULL, .check = are_pip_packages,
     .help = "Requirements, the path of a requirements file, or {packages, pip_check, pip_version, "
             "pip_install_options}. They go over the packages of the interpreter."},
    {"uv", RS_TYPE_ANY, .flags = RS_F_NULL, .check = are_uv_packages,
     .help = "The same with uv: {packages, uv_check, uv_version, uv_pip_install_options}."},
    {"conda", RS_TYPE_ANY, .flags = RS_F_NULL, .check = is_conda,
     .help = "Name or folder of an environment, or the path or content of an environment.yml."},
    {"py_executable", RS_TYPE_TEXT, .flags = RS_F_NULL, .check = is_executable,
     .help = "Interpreter, with arguments: \"uv run\"."},
    {"worker_process_setup_hook", RS_TYPE_TEXT, .flags = RS_F_NULL, .check = is_hook,
     .help = "module.function, called before the application is imported."},
    {"config", RS_TYPE_OBJECT, .flags = RS_F_NULL | RS_F_SPARSE,
     .object = &rs_object_runtime_config, .help = "setup_timeout_seconds, eager_install."},
    NOT_DONE("image_uri", CONTAINERS),
    NOT_DONE("container", CONTAINERS),
    NOT_DONE("nsight", PROFILERS),
    NOT_DONE("_nsight", PROFILERS),
    NOT_DONE("rocprof_sys", PROFILERS),
    NOT_DONE("_rocprof_sys", PROFILERS),
    NOT_DONE("java_jars", "replicas are Python, executables or HTTP servers; use rserve.command"),
    NOT_DONE("mpi", "rserve does not start MPI jobs"),
};
const struct rs_object rs_object_runtime = RS_OBJECT(
    "runtime_env",
    "Environment in which an application, or one deployment, is imported and runs. It is built "
    "once, "
    "kept by content in $RSERVE_ENV_DIR (default: rserve/envs in the user's cache folder), and "
    "removed when it was unused for RSERVE_ENV_MAX_DAYS (14) or the cache is larger than "
    "RSERVE_ENV_MAX_GB (10). Unknown keys are errors.",
    runtime_fields, true);
