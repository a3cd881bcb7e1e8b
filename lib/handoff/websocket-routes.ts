// Which WebSocket handshakes a proxy takes. That must be known before they are routed: those for the routes of @fastify/websocket go to its
// listener for 'upgrade', which routes them itself.

/** On a handler that passes handshakes on. */
export const kPassesHandshakes = Symbol.for('fastify-duplex.passesHandshakes')

interface Route { readonly segments: readonly string[], readonly rank: string, readonly isProxied: boolean }

export class WebSocketRoutes {
  private readonly routes: Route[] = []

  /** @param url the pattern of the route */
  add (url: string, isProxied: boolean): void {
    const segments = segmentsOf(url)
    // Routers prefer names to parameters, and these to wildcards, from left to right.
    const rank = segments.map((segment) => segment.endsWith('*') ? '0' : segment.includes(':') ? '1' : '2').join('')
    this.routes.push({ segments, rank, isProxied })
  }

  /** Whether a proxy has the best route for the target of a handshake. */
  isProxied (target: string): boolean {
    let best: Route | null = null
    const path = segmentsOf(target.replace(/[?#].*$/s, ''))
    for (const route of this.routes) {
      if (matches(route.segments, path) && (best === null || route.rank > best.rank)) best = route
    }
    return best?.isProxied ?? false
  }
}

function segmentsOf (path: string): string[] {
  return path.split('/').map((segment) => {
    try {
      return decodeURIComponent(segment)
    } catch {
      return segment
    }
  })
}

/** The expression of a parameter is not tried: such a route takes any handshake that has something in that place. */
function matches (pattern: readonly string[], path: readonly string[]): boolean {
  for (let i = 0; i < pattern.length; i++) {
    if (i < path.length && pattern[i].endsWith('*')) return true
    if (i >= path.length || !matchesSegment(pattern[i], path[i])) return false
  }
  return pattern.length === path.length
}

function matchesSegment (pattern: string, segment: string): boolean {
  const colon = pattern.indexOf(':')
  return colon === -1 ? pattern === segment : segment.length > colon && segment.startsWith(pattern.slice(0, colon))
}
