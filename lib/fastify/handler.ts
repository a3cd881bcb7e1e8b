// Running the handler of a duplex route: what it returns or yields is written, what it throws is answered or cuts off.

import { type Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { HeadSentError } from '../errors.ts'
import { isPromise } from './hooks.ts'
import { type RouteExchange, exchangeOf } from './route-exchange.ts'

export type Handler = (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => any

const AsyncGeneratorFunction = Object.getPrototypeOf(async function * () {}).constructor

/**
 * The onRoute hook that comes before those of other plugins. What they wrap around the handler (the span of a tracer, for
 * example) then spans the whole run of a generator, not only the call that creates it.
 */
export function runGenerators (route: RouteOptions): void {
  const { duplex, handler } = route as { duplex?: unknown, handler: Handler }
  if (!duplex || !(handler instanceof AsyncGeneratorFunction)) return
  route.handler = named(handler, function (request, reply) {
    return writeBody(handler.call(this, request, reply) as AsyncIterable<unknown>, request, reply)
  })
}

/** Gives a handler the name of the one it wraps, by which tracers call their spans, and the properties that others have set on that. */
function named (wrapped: Handler, handler: Handler): Handler {
  const { prototype, ...properties } = Object.getOwnPropertyDescriptors(wrapped)
  return Object.defineProperties(handler, properties)
}

/** Wraps the handler of a route. @fastify/websocket wraps handlers as (request, reply): the signature must stay. */
export function runHandler (handler: Handler): Handler {
  return named(handler, function (request, reply) {
    const exchange = exchangeOf(request.raw)
    let result
    try {
      result = handler.call(this, request, reply)
    } catch (error) {
      return onThrow(exchange, reply, error as Error)
    }
    if (isAsyncIterable(result, exchange)) result = writeBody(result, request, reply)
    if (isPromise(result) && result !== reply as unknown) return afterPromise(result, exchange, request, reply)
    exchange.unattended = true
    exchange.handlerHasReturned = true
    exchange.stream?.finishIfComplete()
    exchange.answerFailure(reply)
    return answerOf(exchange, result)
  })
}

async function afterPromise (result: PromiseLike<unknown>, exchange: RouteExchange, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  try {
    let value = await result
    if (isAsyncIterable(value, exchange)) value = await writeBody(value, request, reply)
    exchange.handlerHasReturned = true
    exchange.stream?.finishIfComplete()
    if (exchange.answersFailure) return reply
    // Nobody has answered, and the exchange has failed: that is the answer.
    if ((value === undefined || value === exchange.stream) && exchange.isFailedUnanswered) return onThrow(exchange, reply, exchange.stream!.errored!)
    return answerOf(exchange, value)
  } catch (error) {
    return onThrow(exchange, reply, error as Error)
  }
}

/** What a handler returns is its answer, unless the answer has begun: `reply.duplex.end()` returns the stream. */
function answerOf ({ stream }: RouteExchange, value: unknown): unknown {
  return stream?.headersSent || value === stream ? undefined : value
}

/** Writes what a handler yields. */
async function writeBody (content: AsyncIterable<unknown>, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { duplex } = reply
  if (request.method === 'HEAD') {
    await content[Symbol.asyncIterator]().return?.()
  } else if (content instanceof Readable) {
    return pipeline(content, duplex)
  } else {
    // A pipeline would cost more than the rest of a short exchange, mostly for its AbortController.
    for await (const chunk of content) {
      if (!duplex.write(chunk)) await drained(duplex)
    }
  }
  duplex.end()
}

/** Resolves when more may be written; rejects when nothing can be. */
async function drained (stream: Duplex): Promise<void> {
  if (!stream.closed) {
    await new Promise<void>((resolve) => {
      const onEvent = (): void => {
        stream.removeListener('drain', onEvent).removeListener('close', onEvent)
        resolve()
      }
      stream.on('drain', onEvent).on('close', onEvent)
    })
  }
  // Without an error if somebody else has answered.
  if (stream.destroyed) throw stream.errored ?? new HeadSentError()
}

/** A handler has failed. Before the head that is Fastify's to answer; after it the response can only be cut off. */
function onThrow ({ stream, answersFailure }: RouteExchange, reply: FastifyReply, error: Error): FastifyReply | undefined {
  if (stream === null) throw error
  const { failure } = stream
  if (answersFailure || failure !== null) {
    // The exchange had failed before, and that is mostly what the handler throws now.
    if (answersFailure || failure !== error) reply.log.debug({ err: error }, 'duplex handler failed after its exchange')
    return answersFailure ? reply : undefined
  }
  if (!stream.headersSent && !stream.isDetached) {
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

function isAsyncIterable (value: unknown, exchange: RouteExchange): value is AsyncIterable<unknown> {
  return typeof (value as AsyncIterable<unknown> | null | undefined)?.[Symbol.asyncIterator] === 'function' && value !== exchange.stream
}
