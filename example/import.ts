// A bulk import. The client sends rows as NDJSON. Each row is answered at once with a result line, and the totals are sent as
// trailers. Rows are saved one at a time. While `save` is busy, or the client does not read its results, no more rows are read.
// `npm run example:import`

import { StringDecoder } from 'node:string_decoder'
import type { FastifyInstance } from 'fastify'
import { listen } from './listen.ts'

const MAX_ROW_LENGTH = 64 * 1024
const schema = {
  type: 'object',
  required: ['name', 'amount'],
  properties: { name: { type: 'string', minLength: 1 }, amount: { type: 'number' } }
}

export interface Row { name: string, amount: number }

export interface ImportOptions { save: (row: Row) => Promise<unknown> }

export async function bulkImport (app: FastifyInstance, { save }: ImportOptions): Promise<void> {
  app.route({
    method: ['POST', 'PUT'], // `curl -T` sends PUT
    url: '/import',
    duplex: true,
    handler: async function * (request, reply) {
      reply.type('application/x-ndjson')
      const isRow = request.compileValidationSchema(schema)

      const importRow = async (line: string): Promise<object> => {
        try {
          if (line.length > MAX_ROW_LENGTH) throw new Error('too long')
          const row = JSON.parse(line)
          if (!isRow(row)) throw new Error(isRow.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`.trim()).join(', '))
          await save(row)
          return { ok: true }
        } catch (error) {
          return { ok: false, error: (error as Error).message }
        }
      }

      let imported = 0
      let rowNumber = 0
      for await (const line of lines(reply.duplex)) {
        if (line.trim() === '') continue
        const result = { row: ++rowNumber, ok: false, ...await importRow(line) }
        if (result.ok) imported++
        yield JSON.stringify(result) + '\n'
      }
      reply.duplex.setTrailers({ 'x-imported': imported, 'x-refused': rowNumber - imported })
    }
  })
}

/** Splits the stream into lines. Keeps only the beginning of a line that is too long for a row, to save memory. */
async function * lines (stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new StringDecoder()
  let partialLine = ''
  for await (const chunk of stream) {
    const completeLines = (partialLine + decoder.write(chunk)).split('\n')
    partialLine = completeLines.pop()!.slice(0, MAX_ROW_LENGTH + 1)
    yield * completeLines
  }
  yield partialLine + decoder.end()
}

async function main (): Promise<void> {
  const rows = new Map<string, number>()
  const address = await listen((app) => app.register(bulkImport, {
    save: async ({ name, amount }: Row) => rows.set(name, amount)
  }))
  console.log(`Each row is answered before the next is sent:

  (while sleep 1; do echo '{"name":"a","amount":1}'; echo '{"name":"b"}'; done) | curl -sN -T . ${address}/import`)
}

if (require.main === module) main()
