// The proxies that are compared, each a process of its own in front of the same origin.

import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { http1 } from './client/http1.ts'
import { type Peer, compiled, onNode } from './peers.ts'

/** Where Debian has it. */
const NGINX_STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** It runs on the core of the client: it is not measured, and must not take from the time of the proxies. */
export const ORIGIN: Peer = compiled('origin', 'the origin', 'go', ['origin'])

/** Id of the plugin's proxy. */
export const PROXY = 'proxy'

/** @param port of the origin */
export function proxies (port: number): Peer[] {
  const haproxy = unlessMissing('haproxy')
  const nginx = unlessMissing('nginx')
  const hasStream = nginx && isThere('the nginx proxy, TCP', 'the stream module of nginx', existsSync(NGINX_STREAM_MODULE))
  return [
    proxy(PROXY, 'this plugin, `proxy`', 'duplex.js'),
    proxy('proxy-net', 'bare `net` pipe, TCP', 'net.js'),
    proxy('proxy-fastify', '@fastify/http-proxy', 'fastify.js'),
    proxy('proxy-http-proxy-3', 'http-proxy-3', 'http-proxy-3.js'),
    proxy('proxy-httpxy', 'httpxy', 'httpxy.js'),
    ...haproxy ? [native('proxy-haproxy', 'HAProxy, HTTP', 'haproxy-http.cfg'), native('proxy-haproxy-tcp', 'HAProxy, TCP', 'haproxy-tcp.cfg')] : [],
    ...nginx ? [native('proxy-nginx', 'nginx, HTTP', 'nginx-http.conf')] : [],
    ...hasStream ? [native('proxy-nginx-tcp', 'nginx, TCP', 'nginx-tcp.conf')] : []
  ]

  function proxy (id: string, label: string, script: string, args: string[] = []): Peer {
    return { ...onNode(id, label, http1, join('proxy', script), [String(port), ...args]), mayStall: id !== PROXY }
  }

  function native (id: string, label: string, file: string): Peer {
    return proxy(id, label, 'native.js', [file, NGINX_STREAM_MODULE])
  }
}

function unlessMissing (command: string): boolean {
  let isInstalled = true
  try {
    execFileSync(command, ['-v'], { stdio: 'ignore' })
  } catch {
    isInstalled = false
  }
  return isThere(`the proxy ${command}`, command, isInstalled)
}

function isThere (what: string, need: string, isInstalled: boolean): boolean {
  if (!isInstalled) console.log(`SKIPPED: ${what}: ${need} is not installed`)
  return isInstalled
}
