// The request-target that a proxy sends. Percent-encoding and the query stay as the client has written them.

import { PathError, TunnelError } from '../errors.ts'
import { parseTarget } from '../transfer/request-target.ts'

/** `.` or `..` as a segment, also with its dots or slashes encoded, with backslashes for slashes, or with parameters behind it. Not in the query. */
const DOT_SEGMENT = /^[^?]*(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;?]|%2f|%5c|%3b|$)/i

const SEGMENT = /\/+([^/?]*)/y

export class PathMap {
  private readonly base: string
  private readonly prefix: readonly string[]
  private readonly rewritePrefix: string

  /**
   * @param base the path of the upstream URL
   * @param prefix taken off the path, if it is there
   * @param rewritePrefix put in its place
   */
  constructor (base: string, prefix: string, rewritePrefix: string) {
    this.base = base.replace(/\/+$/, '')
    this.prefix = prefix.split('/').filter((segment) => segment !== '').map((segment) => segment.toLowerCase())
    this.rewritePrefix = rewritePrefix.replace(/^\/*(?=.)/, '/').replace(/\/+$/, '')
  }

  /**
   * @throws {PathError} FST_ERR_DUPLEX_PATH (400)
   * @throws {TunnelError} FST_ERR_DUPLEX_TUNNEL (501): an extended CONNECT, which HTTP/1.1 does not have
   */
  targetOf (method: string, url: string): string {
    if (method === 'CONNECT') {
      if (url.startsWith('/')) throw new TunnelError('An extended CONNECT')
      return url
    }
    if (url === '*') {
      if (method !== 'OPTIONS') throw new PathError('it is malformed')
      return url
    }
    // An absolute-form target is for proxies that the client has chosen. A server gets a path (RFC 9112 section 3.2.1).
    const path = url.replace(/^https?:\/\/[^/?#]*/i, '')
    if (path.includes('#')) throw new PathError('it has a fragment')
    if (path.startsWith('?')) throw new PathError('it has no path') // routers disagree about where the path begins
    if (DOT_SEGMENT.test(path)) throw new PathError('it has dot segments, which could lead out of the route')
    const rest = this.behindPrefix(path)
    // Such a path would lead out of the rewritten part. Routers find the prefix in some of them: an empty segment, or ";" for "?".
    if (rest === null && this.rewritePrefix !== '') throw new PathError('it does not begin with the prefix')
    const end = this.base + (rest === null ? path : this.rewritePrefix + rest)
    const target = end.startsWith('/') ? end : `/${end}`
    if (parseTarget(method, target) === null) throw new PathError('it is malformed')
    return target
  }

  /** What is behind the prefix. Compares the segments as routers do: decoded (they refuse what cannot be), and parameters (`:name`) with anything. @returns null if the prefix is not there */
  private behindPrefix (path: string): string | null {
    if (this.prefix.length === 0) return path
    SEGMENT.lastIndex = 0
    let end = 0
    for (const segment of this.prefix) {
      const match = SEGMENT.exec(path)
      if (match === null || !(segment.includes(':') || decodeURIComponent(match[1]).toLowerCase() === segment)) return null
      end = SEGMENT.lastIndex
    }
    return path.slice(end)
  }
}
