// The schemas of items: what was read is validated, and what is sent is serialized, with the compilers of the app.

import { STATUS_CODES } from 'node:http'
import { isDeepStrictEqual } from 'node:util'
import type { FastifyError, FastifyInstance, FastifySchemaValidationError, RouteOptions } from 'fastify'
import type { ItemFormat, ResolvedItemOptions, SendFormat } from '../../types/items.d.ts'
import { ItemError, ItemLimitError, ItemSchemaError, ItemSerializeError } from '../errors.ts'
import type { Position, Receiving, Sending } from '../exchange/items.ts'
import { encodeItem, frameTexts } from '../items/codec.ts'
import { hideStacks, restoreStacks } from '../node/stacks.ts'
import { isPromise } from './hooks.ts'
import { type Validate, compilersOf, jsonParserOf, schemaErrorFormatterOf } from './internals.ts'

/** @throws {ItemSchemaError} FST_ERR_DUPLEX_ITEM_SCHEMA */
export function compileReceiving ({ schema, codec, options }: ItemFormat, app: FastifyInstance, route: RouteOptions): Receiving {
  const { maxItemSize, invalid } = options as ResolvedItemOptions
  const validator = building('receive', route, () => compilersOf(app, route).validator(schema))
  const keepsInvalid = invalid === 'item'
  const formatErrors = schemaErrorFormatterOf(app, route) ?? joinErrors
  const decoderOptions = { maxItemSize, parse: jsonParserOf(app) }

  function refuse (position: Position, errors: unknown): never {
    if (Array.isArray(errors)) {
      const cause = formatErrors(errors, 'body')
      throw makeError(position, cause.message, { cause, validation: errors })
    }
    const { message, validation } = errors instanceof Error ? errors as FastifyError : new Error(String(errors)) as FastifyError
    throw makeError(position, message, { cause: errors, validation })
  }

  function makeError ({ index, offset }: Position, message: string, details: { cause: unknown, validation?: FastifySchemaValidationError[] }): ItemError {
    const limit = keepsInvalid ? hideStacks() : null
    try {
      return new ItemError(index, offset, message, details)
    } finally {
      restoreStacks(limit)
    }
  }

  function accept (item: unknown, result: unknown, position: Position): unknown {
    const errors = errorsOf(validator, result)
    if (errors) refuse(position, errors)
    const { value } = result as { value?: unknown } | undefined ?? {}
    return value === undefined ? item : value
  }

  return {
    makeDecoder: () => codec.decoder(decoderOptions),
    keepsInvalid,
    validate (item, position) {
      let result
      try {
        result = validator(item)
      } catch (error) {
        // The stack was too small for what is nested that deeply.
        if (error instanceof RangeError) refuse(position, error)
        throw error
      }
      if (result === true) return item
      if (!isPromise(result)) return accept(item, result, position)
      const { index, offset } = position
      return Promise.resolve(result).then((value) => accept(item, value, { index, offset }), (error) => refuse({ index, offset }, error))
    }
  }
}

/** Runs a compiler of the app. @throws {ItemSchemaError} FST_ERR_DUPLEX_ITEM_SCHEMA: it has failed. As Fastify, it names the route */
function building<Built> (direction: 'receive' | 'send', { method, url }: RouteOptions, compile: () => Built): Built {
  try {
    return compile()
  } catch (error) {
    throw new ItemSchemaError(direction, `${String(method)}: ${url}`, (error as Error).message)
  }
}

/** Why an item is bad, if it is. As Fastify reads it: a validator returns whether the value is valid, an error, or the value in its place. */
function errorsOf (validator: Validate, result: unknown): unknown {
  return result === false ? validator.errors : (result as { error?: unknown } | undefined)?.error
}

/** As Fastify does by default. */
function joinErrors (errors: FastifySchemaValidationError[]): Error {
  return new Error(errors.map(({ instancePath, message }) => `item${instancePath} ${message}`).join(', '))
}

/** @throws {ItemSchemaError} FST_ERR_DUPLEX_ITEM_SCHEMA */
export function compileSending ({ schema, codec, options }: SendFormat, app: FastifyInstance, route: RouteOptions): Sending {
  const [mediaType] = codec.mediaTypes
  const { heartbeat = 0, problem } = options as ResolvedItemOptions
  const compilers = compilersOf(app, route)
  const serialize = codec.frame === undefined ? null : building('send', route, () => compilers.serializer(schema, mediaType))
  let validator: Validate | undefined // compiled when it is needed: a schema may be made for the serializer only

  function toJson (item: unknown): string {
    if (ArrayBuffer.isView(item)) throw new TypeError('it is bytes')
    const json = serialize!(item)
    // fast-json-stringify makes a text of what JSON.stringify() returns, which is undefined for some values.
    if (typeof json !== 'string' || json === 'undefined' || json === '') throw new TypeError('there is no JSON for it')
    return json
  }

  /** Whether nothing of a record is lost, and the schema allows it. */
  function fits (record: unknown): boolean {
    const copy = JSON.parse(JSON.stringify(record))
    if (serialize !== null && !isDeepStrictEqual(JSON.parse(toJson(record)), copy)) return false
    validator ??= compilers.validator(schema)
    const result = validator(copy)
    if (!isPromise(result)) return !errorsOf(validator, result)
    result.then(ignore, ignore) // the answer would come too late
    return false
  }

  return {
    mediaType,
    heartbeat: heartbeat === 0 ? null : { timeout: heartbeat, content: codec.heartbeat! },
    encode: (item, index) => encodeItem(codec, toJson, item, index),
    frame: (texts) => frameTexts(codec, texts),
    encodeFailure (error, index) {
      if (problem === false) return null
      const record = typeof problem === 'function' ? problem(error) : problemOf(error)
      if (isPromise(record)) {
        record.then(ignore, ignore) // too late: the response is cut off
        return null
      }
      if (record === undefined || record === null || record === false || !fits(record)) return null
      const content = this.encode(record, index)
      return typeof content === 'string' ? this.frame([content]) : content
    }
  }
}

/** The record of an error (RFC 9457), if it is about items; else undefined: then the cut-off must do. */
function problemOf (error: Error): object | undefined {
  if (!(error instanceof ItemError || error instanceof ItemLimitError || error instanceof ItemSerializeError)) return undefined
  const { statusCode, message, code, index } = error
  return { type: 'about:blank', title: STATUS_CODES[statusCode], status: statusCode, detail: message, code, index, ...('offset' in error && { offset: error.offset }) }
}

function ignore (): void {}
