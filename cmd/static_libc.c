/* What glibc can only do with shared objects beside it, which a static executable has not: load others
 * and look up names (nsswitch). Libraries that offer to use it (SQLite, OpenSSL, c-ares) get these in
 * their place (meson.build: --wrap), which find nothing, and the linker has nothing to warn of. rserve
 * itself asks for names by c-ares (net/wire/resolve.h). */
#include <netdb.h>
#include <stddef.h>

void *__wrap_dlopen(const char *file, int mode);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret);
struct hostent *__wrap_gethostbyname(const char *name);
struct servent *__wrap_getservbyname(const char *name, const char *proto);
int __wrap_getservbyport_r(int port, const char *proto, struct servent *entry, char *buf,
                           size_t size, struct servent **ret);

void *__wrap_dlopen(const char *file, int mode)
{
    (void)file;
    (void)mode;
    return NULL;
}

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret)
{
    (void)node;
    (void)service;
    (void)hints;
    *ret = NULL;
    return EAI_NONAME;
}

struct hostent *__wrap_gethostbyname(const char *name)
{
    (void)name;
    return NULL;
}

struct servent *__wrap_getservbyname(const char *name, const char *proto)
{
    (void)name;
    (void)proto;
    return NULL;
}

int __wrap_getservbyport_r(int port, const char *proto, struct servent *entry, char *buf,
                           size_t size, struct servent **ret)
{
    (void)port;
    (void)proto;
    (void)entry;
    (void)buf;
    (void)size;
    *ret = NULL;
    return 0;
}
