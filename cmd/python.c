/* rserve python: a Python program with rserve's `ray` on its path.
 *
 * Becomes the interpreter: exit status, signals and the terminal are the program's own.
 */
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "sched/pyruntime/pyruntime.h"
#include "sched/supervise/statedir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cmd_python(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_python = {
    .name = "python",
    .args = "[PYTHON-OPTIONS] FILE|-m MODULE|-c CODE [ARGS]...",
    .summary = "run a Python program that calls serve.run, ray.init, ...",
    .details =
        "Everything after the verb goes to the interpreter: $RSERVE_PYTHON, or python3 on PATH.\n"
        "The program joins the node that RSERVE_ADDRESS, RAY_ADDRESS or RAY_DASHBOARD_ADDRESS "
        "names, "
        "else one of this user that runs on this machine, else it starts one of its own, which "
        "ends "
        "with it. The address \"local\" always starts one.",
    .min_args = 0,
    .max_args = -1,
    .run = cmd_python,
    .file_args = true,
    .raw_args = true,
};

static int put_env(const char *name, const char *value, struct rs_error *err)
{
    if (setenv(name, value, 1) < 0)
        return rs_error_errno(err, errno, "setenv %s", name);
    return 0;
}

static int cmd_python(int argc, char *argv[], struct rs_error *err)
{
    const char *python = getenv("RSERVE_PYTHON"), *path = getenv("PYTHONPATH");
    rs_auto(rs_freep) char *zip = NULL, *both = NULL;
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        rs_help_print_verb(&rs_verb_python, stdout);
        return RS_EXIT_OK;
    }
    if (n < 0)
        return rs_error_errno(err, errno, "cannot tell where this program is");
    self[n] = '\0';
    if (rs_statedir_install("rserve.zip", rs_pyruntime_zip, rs_pyruntime_zip_size, &zip, err) < 0)
        return -1;
    both = path && *path ? rs_asprintf("%s:%s", zip, path) : rs_strdup(zip);
    if (put_env("PYTHONPATH", both, err) < 0 || put_env("RSERVE_BIN", self, err) < 0)
        return -1;
    if (!python || !*python)
        python = "python3";
    argv[0] = (char *)(uintptr_t)python;
    execvp(python, argv);
    return rs_error_errno(err, errno, "cannot run the Python interpreter '%s'", python);
}
