#include "net/api/process.h"

#include "core/base/text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void put(struct rs_buf *out, const char *name, const char *type, const char *help,
                double value)
{
    char text[RS_DOUBLE_TEXT];

    rs_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", name, help, name, type, name,
                  rs_text_double(value, text));
}

static bool read_text(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (!f)
        return false;
    n = fread(out, 1, size - 1, f);
    out[n] = '\0';
    fclose(f);
    return n > 0;
}

/* The number at place `nr` (from 0) among fields between blanks; 0 if there is none. */
static double number(const char *fields, int nr)
{
    for (; nr > 0; nr--) {
        fields += strspn(fields, " ");
        fields += strcspn(fields, " ");
    }
    return (double)strtoull(fields, NULL, 10);
}

/* Seconds since the epoch at which the machine started; 0 if that is not known. */
static double boot_time(void)
{
    FILE *f = fopen("/proc/stat", "re");
    double seconds = 0;
    char line[512];

    if (!f)
        return 0;
    while (seconds == 0 && fgets(line, sizeof(line), f))
        if (strncmp(line, "btime ", 6) == 0)
            seconds = number(line, 1);
    fclose(f);
    return seconds;
}

static void put_stat(struct rs_buf *out)
{
    enum { USER = 12, SYSTEM = 13, START = 20 }; /* counted from the field behind the name */
    double tick = (double)sysconf(_SC_CLK_TCK), boot = boot_time();
    const char *fields;
    char text[1024];

    if (!read_text("/proc/self/stat", text, sizeof(text)))
        return;
    fields = strrchr(text, ')'); /* the name before it may hold anything */
    if (!fields)
        return;
    put(out, "process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds.",
        (number(fields, USER) + number(fields, SYSTEM)) / tick);
    if (boot > 0)
        put(out, "process_start_time_seconds", "gauge",
            "Start time of the process since unix epoch in seconds.",
            boot + number(fields, START) / tick);
}

static void put_memory(struct rs_buf *out)
{
    double page = (double)sysconf(_SC_PAGESIZE);
    char text[256];

    if (!read_text("/proc/self/statm", text, sizeof(text)))
        return;
    put(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
        number(text, 0) * page);
    put(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
        number(text, 1) * page);
}

static void put_descriptors(struct rs_buf *out)
{
    DIR *dir = opendir("/proc/self/fd");
    struct rlimit limit;
    const struct dirent *e;
    int n = -1; /* the directory's own */

    if (!dir)
        return;
    while ((e = readdir(dir)))
        n += e->d_name[0] != '.';
    closedir(dir);
    put(out, "process_open_fds", "gauge", "Number of open file descriptors.", n);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        put(out, "process_max_fds", "gauge", "Maximum number of open file descriptors.",
            (double)limit.rlim_cur);
}

void rs_process_text(struct rs_buf *out)
{
    put_memory(out);
    put_stat(out);
    put_descriptors(out);
}
