// What this plugin must know of the insides of Fastify: where it keeps hooks and servers, what `hijack()` forgets, when it
// looks at a method or a URL. The same from Fastify 5.8.1 to 6.0.0-alpha.4.

import { EventEmitter } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, onRouteHookHandler } from 'fastify'

type Listener = (...args: any[]) => void
/** Called as the first thing for a request that has been routed, with Node's request at the end, before any hook. */
export type LoggerFactory = (this: FastifyInstance, logger: any, bindings: any, options: any, request: IncomingMessage) => any

/**
 * The servers Fastify made beside its own, for the other addresses of `localhost`; there are none before it listens.
 */
export function otherServers (app: FastifyInstance): Server[] {
  return ownSymbol(app, 'fastify.serverBindings') ?? []
}

/** The hooks of the reply's route, in order, the app's own before; the very array Fastify runs them from. */
export function hooksOf (reply: FastifyReply, name: 'preParsing' | 'onError' | 'onTimeout'): ((...args: any[]) => unknown)[] {
  return ownSymbol(reply.request, 'fastify.context')?.[name] ?? []
}

/** Adds an onRoute hook that runs before those of plugins that were registered earlier. */
export function prependOnRoute (app: FastifyInstance, hook: onRouteHookHandler): void {
  app.addHook('onRoute', hook)
  const { onRoute: hooks } = ownSymbol(app, 'fastify.hooks')
  hooks.unshift(hooks.pop())
}

/**
 * `reply.hijack()`, but for the abort of `request.signal`, which Fastify drops for a reply that leaves its care. This
 * one does not.
 *
 * @returns what to call when the exchange has ended well; without it `request.signal` would abort then
 */
export function hijack (reply: FastifyReply): () => void {
  const { raw } = reply.request
  const onAbort = keepingCloseListeners(raw, () => { reply.hijack() })
  return onAbort === undefined ? ignore : () => { raw.removeListener('close', onAbort) }
}

/** Does something that makes Fastify take its abort of `request.signal` off the request, and puts it back. */
export function keepingCloseListeners (request: IncomingMessage, action: () => void): Listener | undefined {
  const before = request.listenerCount('close') > 0 ? request.listeners('close') : []
  action()
  const after = before.length > 0 ? request.listeners('close') : []
  const gone = before.find((listener) => !after.includes(listener)) as Listener | undefined
  if (gone !== undefined) request.on('close', gone)
  return gone
}

/**
 * Aborts `request.signal` with a reason: Fastify's own aborts have none. Who asks for the signal later gets it aborted.
 */
export function abortSignal (request: FastifyRequest, reason: Error): void {
  if (!request.signal.aborted) ownSymbol(request, 'fastify.request.signal')?.abort(reason)
}

const methodWithoutBody: PropertyDescriptor & ThisType<{ method?: string }> = {
  configurable: true,
  get () {
    delete this.method
    return ''
  }
}

/**
 * Keeps Fastify from parsing the body of a request, of any type. It looks at `request.method` once, right after the
 * preParsing hooks, to see whether there is a body. The empty method has none. It is gone before anybody else can look.
 */
export function hideBody (request: FastifyRequest): void {
  Object.defineProperty(request, 'method', methodWithoutBody)
}

/** Whether `hook`, one of its route's preParsing hooks, runs behind all others. Fastify binds hooks. */
export function runsLast (reply: FastifyReply, hook: Function): boolean {
  return hooksOf(reply, 'preParsing').at(-1)?.name === `bound ${hook.name}`
}

// The router takes paths, and the target of CONNECT is none: find-my-way 9.10.2 refuses it before any route is asked; before
// it took off the first character. So a target is routed as the one segment of a path.

const targets = new WeakMap<IncomingMessage, { target: string, path: string }>()

/** Before a CONNECT request is routed. Only the extended CONNECT of HTTP/2 has a path (RFC 8441). */
export function makeTargetRoutable (request: IncomingMessage): void {
  const target = request.url!
  if (target.startsWith('/')) return
  request.url = `/${encodeURIComponent(target)}`
  targets.set(request, { target, path: request.url })
}

/**
 * Gives routed requests their target back, once the app is ready. Fastify asks for the id of a request as the first thing
 * behind its router, whatever that has found. Only `rewriteUrl` and constraints see the path.
 */
export function restoreTargets (app: FastifyInstance): void {
  let root = app
  while (Object.getPrototypeOf(root) !== Object.prototype) root = Object.getPrototypeOf(root)
  restoreTargetsBelow(root)
}

function restoreTargetsBelow (instance: FastifyInstance): void {
  const generate = ownSymbol(instance, 'fastify.genReqId')
  if (generate !== undefined) {
    Object.assign(instance, {
      [known.get('fastify.genReqId')!]: (request: IncomingMessage) => {
        if (request.method === 'CONNECT') restoreTarget(request)
        return generate(request)
      }
    })
  }
  for (const child of ownSymbol(instance, 'fastify.children')) restoreTargetsBelow(child)
}

function restoreTarget (request: IncomingMessage & { originalUrl?: string }): void {
  const { target, path } = targets.get(request) ?? {}
  if (target === undefined) return
  if (request.url === path) request.url = target
  if (request.originalUrl === path) request.originalUrl = target // what an app's `rewriteUrl` was given
}

/** The first hook of a route of CONNECT. The onRequest hooks of the app still see a slash before `params['*']`. */
export function restoreParameter ({ raw, params }: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  const { target } = targets.get(raw) ?? {}
  if (target !== undefined && '*' in (params as object)) (params as Record<string, string>)['*'] = target
  done()
}

/** Whether onError hooks run for a reply: Fastify throws from its `send` then. */
export function isInOnError (reply: FastifyReply): boolean {
  return ownSymbol(reply, 'fastify.reply.isRunningOnErrorHook') === true
}

/** Whether `send` with this payload ends the handling of an error: no further error handler would be asked. */
export function endsErrorHandling (reply: FastifyReply, payload: unknown): boolean {
  return !(payload instanceof Error) || ownSymbol(reply, 'fastify.reply.nextErrorHandler')?.func === undefined
}

/** Symbols found before: looking through all those of an object takes long. */
const known = new Map<string, symbol>()

function ownSymbol (object: object, description: string): any {
  let symbol = known.get(description)
  if (symbol === undefined || !Object.hasOwn(object, symbol)) {
    symbol = Object.getOwnPropertySymbols(object).find((one) => one.description === description)
    if (symbol === undefined) return undefined
    known.set(description, symbol)
  }
  return (object as Record<symbol, unknown>)[symbol]
}

/**
 * Checks that Fastify still has every name used above which exists at registration. The order of Fastify's steps, and the
 * names that only appear while it handles an error, cannot be checked here: the test matrix covers them.
 *
 * @returns what this Fastify lacks; null if nothing
 */
export function missingFromFastify (app: FastifyInstance): string | null {
  const missing: string[] = []
  const expect = (name: string, isThere: () => boolean): void => {
    try {
      if (!isThere()) missing.push(name)
    } catch {
      missing.push(name)
    }
  }
  const raw = new EventEmitter()
  expect('hooks of an app', () => Array.isArray(ownSymbol(app, 'fastify.hooks').onRoute))
  expect('servers of an app', () => Array.isArray(findSymbol(app, 'fastify.serverBindings')))
  expect('children of an app', () => Array.isArray(ownSymbol(app, 'fastify.children')))
  expect('ids of requests', () => typeof findSymbol(app, 'fastify.genReqId') === 'function')
  expect('context of a request', () => {
    const request = new (findSymbol(app, 'fastify.Request'))('', {}, raw, {}, app.log, { preParsing: [] })
    return hooksOf({ request } as FastifyReply, 'preParsing').length === 0 && ownSymbol(request, 'fastify.context') !== undefined
  })
  expect('signal of a request', () => {
    const request = new (findSymbol(app, 'fastify.Request'))('', {}, raw, {}, app.log, {})
    const { signal } = request
    abortSignal(request, new Error())
    return signal.aborted
  })
  return missing.length === 0 ? null : missing.join(', ')
}

/** Of the object, or of what it inherits from, as the instances of plugins do. */
function findSymbol (object: object, description: string): any {
  for (let one = object; one !== null; one = Object.getPrototypeOf(one)) {
    const found = ownSymbol(one, description)
    if (found !== undefined) return found
  }
}

function ignore (): void {}
