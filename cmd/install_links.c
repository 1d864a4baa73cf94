/* rserve install-links: the names `serve` and `ray` as links to this executable. */
#include "cmd/verb.h"
#include "core/base/alloc.h"
#include "core/base/cleanup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct links_options {
    bool force;
};

static const struct rs_option links_options[] = {
    {"force", 'f', RS_OPT_FLAG, offsetof(struct links_options, force), NULL,
     "replace what is there, but never a folder"},
    {NULL},
};

static int run_links(int argc, char *argv[], struct rs_error *err);

const struct rs_verb rs_verb_install_links = {
    .name = "install-links",
    .args = "DIR",
    .summary = "make the names 'serve' and 'ray' in a folder",
    .details =
        "They are links to this executable: 'serve run' is then 'rserve serve run'. Links that "
        "are right already stay. Where another program is in the way nothing is changed.",
    .min_args = 1,
    .max_args = 1,
    .options = links_options,
    .run = run_links,
    .file_args = true,
};

enum found { NOTHING, OURS, OTHER };

struct link {
    char *path;
    char was[PATH_MAX]; /* what a link there leads to; "" if it is none */
    enum found found;
};

/* What is at `l->path`; `self` is the executable. */
static int look(struct link *l, const char *self, struct rs_error *err)
{
    char target[PATH_MAX];
    struct stat st;
    ssize_t n;

    if (lstat(l->path, &st) < 0) {
        if (errno != ENOENT)
            return rs_error_errno(err, errno, "cannot look at '%s'", l->path);
        return 0;
    }
    if (S_ISDIR(st.st_mode))
        return rs_error_set(err, RS_CONFLICT, "'%s' is a folder", l->path);
    n = readlink(l->path, l->was, sizeof(l->was) - 1);
    l->was[n > 0 ? n : 0] = '\0';
    l->found = n > 0 && realpath(l->path, target) && strcmp(target, self) == 0 ? OURS : OTHER;
    return 0;
}

/* In one step: the name is never missing. */
static int make(const struct link *l, const char *self, struct rs_error *err)
{
    rs_auto(rs_freep) char *temp = rs_asprintf("%s.rserve-%d", l->path, (int)getpid());

    if (symlink(self, temp) < 0)
        return rs_error_errno(err, errno, "cannot make a link in '%s'", l->path);
    if (rename(temp, l->path) < 0) {
        rs_error_errno(err, errno, "cannot make the link '%s'", l->path);
        unlink(temp);
        return -1;
    }
    return 0;
}

static int refuse(const struct link *l, struct rs_error *err)
{
    return rs_error_set(err, RS_CONFLICT,
                        "'%.200s' is there already and is %s%.200s; --force replaces it", l->path,
                        l->was[0] ? "a link to " : "another program", l->was);
}

static int run_links(int argc, char *argv[], struct rs_error *err)
{
    struct links_options o = {0};
    struct link links[8] = {0};
    char self[PATH_MAX];
    size_t n = 0;
    int r = 0;

    if (rs_verb_parse(&rs_verb_install_links, argc, argv, &o, err) < 0)
        return -1;
    if (!realpath("/proc/self/exe", self))
        return rs_error_errno(err, errno, "cannot find this executable (is /proc mounted?)");
    for (const struct rs_verb *const *v = rs_verbs; *v && r == 0 && n < RS_COUNT(links); v++) {
        if (!(*v)->verbs)
            continue;
        links[n].path = rs_asprintf("%s/%s", argv[1], (*v)->name);
        r = look(&links[n], self, err);
        if (r == 0 && links[n].found == OTHER && !o.force)
            r = refuse(&links[n], err);
        n++;
    }
    for (size_t i = 0; i < n && r == 0; i++) {
        if (links[i].found == OURS) {
            printf("%s -> %s (was there already)\n", links[i].path, self);
            continue;
        }
        r = make(&links[i], self, err);
        if (r == 0)
            printf("%s -> %s%s\n", links[i].path, self,
                   links[i].found == OTHER ? " (replaced what was there)" : "");
    }
    for (size_t i = 0; i < n; i++)
        free(links[i].path);
    return r;
}
