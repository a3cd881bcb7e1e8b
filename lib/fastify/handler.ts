// Runs the handler of a duplex route. What it returns or yields is written to the response. What it throws is answered, or cuts
// the response off.

import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { AbortedError, HeadSentError } from '../errors.ts'
import { isPromise } from './hooks.ts'
import { type RouteExchange, exchangeOf } from './route-exchange.ts'

export type Handler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => any

const AsyncGeneratorFunction = Object.getPrototypeOf(async function * () {}).constructor

/**
 * The onRoute hook that runs before those of other plugins. It wraps a handler that is a generator into one that returns a
 * promise. Other plugins may wrap the handler too. A tracer, for example, then measures the whole run of the generator, not only
 * the call that creates it.
 */
export function wrapGenerator (route: RouteOptions): void {
  const { duplex, handler } = route as { duplex?: unknown, handler: Handler }
  if (!duplex || !(handler instanceof AsyncGeneratorFunction)) return
  route.handler = copyProperties(handler, function (request, reply) {
    return writeBody(handler.call(this, request, reply) as AsyncIterable<unknown>, request, reply)
  })
}

/**
 * Gives a handler the properties of the one that it wraps: the name, after which tracers name their spans, and those that other
 * plugins have set.
 */
function copyProperties (wrapped: Handler, handler: Handler): Handler {
  const { prototype, ...properties } = Object.getOwnPropertyDescriptors(wrapped)
  return Object.defineProperties(handler, properties)
}

/** Wraps the handler of a route. The signature (request, reply) must stay: @fastify/websocket calls handlers with it. */
export function wrapHandler (handler: Handler): Handler {
  return copyProperties(handler, function (request, reply) {
    const exchange = exchangeOf(request.raw)
    let result
    try {
      result = handler.call(this, request, reply)
    } catch (error) {
      return onThrow(exchange, reply, error as Error)
    }
    if (isBody(result, exchange)) result = writeBody(result, request, reply)
    if (isPromise(result) && result !== reply as unknown) return afterPromise(result, exchange, request, reply)
    exchange.isUnattended = true
    const answer = answerOf(exchange, result)
    exchange.onReturn(result)
    const failure = exchange.unansweredFailure
    if (failure !== null) exchange.answerFailure(failure)
    return answer
  })
}

async function afterPromise (result: PromiseLike<unknown>, exchange: RouteExchange, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  try {
    let value = await result
    if (isBody(value, exchange)) value = await writeBody(value, request, reply)
    const answer = exchange.stream?.headersSent ? reply : answerOf(exchange, value) // with `undefined`, Fastify would answer
    exchange.onReturn(value)
    if (exchange.isAnsweringFailure) return reply
    // The exchange has failed, and nobody has answered: answer with that failure.
    const failure = exchange.unansweredFailure
    if ((value === undefined || value === exchange.stream) && failure !== null) return onThrow(exchange, reply, failure)
    return answer
  } catch (error) {
    return onThrow(exchange, reply, error as Error)
  }
}

/** The answer that Fastify is to send. Undefined if there is none: the response has begun, or `reply.duplex.end()` was returned. */
function answerOf ({ stream }: RouteExchange, value: unknown): unknown {
  return stream?.headersSent || value === stream ? undefined : value
}

/** Writes a body that the handler has returned, and ends the response. */
async function writeBody (content: AsyncIterable<unknown>, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { duplex } = reply
  if (request.method === 'HEAD') {
    await content[Symbol.asyncIterator]().return?.()
  } else if (content instanceof Readable) {
    return pipeline(content, duplex)
  } else {
    // Not with pipeline(): that would cost more than the rest of a short exchange, mostly for its AbortController.
    for await (const chunk of content) {
      if (!duplex.write(chunk)) await waitForDrain(duplex)
    }
  }
  duplex.end()
}

/** Resolves when more may be written. Rejects if nothing can be written any more. */
async function waitForDrain (stream: Duplex): Promise<void> {
  if (!stream.closed) {
    await new Promise<void>((resolve) => {
      const onEvent = (): void => {
        stream.removeListener('drain', onEvent).removeListener('close', onEvent)
        resolve()
      }
      stream.on('drain', onEvent).on('close', onEvent)
    })
  }
  // If other code has answered, the stream was destroyed without an error.
  if (stream.destroyed) throw stream.errored ?? new HeadSentError()
}

/** The handler has failed. Before the head, Fastify answers. After the head, the response can only be cut off. */
function onThrow ({ exchange, stream, failure, isAnsweringFailure }: RouteExchange, reply: FastifyReply, error: Error): FastifyReply | undefined {
  exchange!.happens('handler returned')
  if (isAnsweringFailure || failure !== null) {
    // The exchange had failed before. Usually the handler throws that same failure.
    if (isAnsweringFailure || failure !== error) reply.log.debug({ err: error }, 'duplex handler failed after its exchange')
    return isAnsweringFailure ? reply : undefined
  }
  // An upstream, for example, that was aborted together with `request.signal`: the client has ended its side, and nobody reads an answer.
  if (exchange!.life.client === 'half-closed' && (error === reply.request.signal.reason || error.name === 'AbortError')) {
    exchange!.happens('client gone', new AbortedError())
    return reply
  }
  if (stream === null) throw error
  if (exchange!.canAnswer || !(stream.headersSent || stream.isDetached)) {
    stream.destroy(error)
    throw error
  }
  if (stream.writableFinished || stream.isDetached) {
    reply.log.error({ err: error }, 'duplex handler failed after its response')
  } else {
    stream.destroy(error)
  }
  return undefined
}

/** Whether a value is a response body to write: an async iterable other than the stream itself. */
function isBody (value: unknown, exchange: RouteExchange): value is AsyncIterable<unknown> {
  return typeof (value as AsyncIterable<unknown> | null | undefined)?.[Symbol.asyncIterator] === 'function' && value !== exchange.stream
}
