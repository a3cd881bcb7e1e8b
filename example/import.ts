// A bulk import. The client sends rows as JSON Lines. Each row is answered at once with a result line, and the totals are sent as
// trailers. Rows are saved one at a time. While `save` is busy, or the client does not read its results, no more rows are read.
// `npm run example:import`

import { type Static, Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { jsonl } from 'fastify-duplex/items'
import { listen } from './listen.ts'

const rowSchema = Type.Object({ name: Type.String({ minLength: 1 }), amount: Type.Number() })
const resultSchema = Type.Object({ index: Type.Integer(), ok: Type.Boolean(), error: Type.Optional(Type.String()) })

export type Row = Static<typeof rowSchema>

export interface ImportOptions { save: (row: Row) => Promise<unknown> }

export async function bulkImport (app: FastifyInstance, { save }: ImportOptions): Promise<void> {
  app.withTypeProvider<TypeBoxTypeProvider>().route({
    method: ['POST', 'PUT'], // `curl -T` sends PUT
    url: '/import',
    duplex: { receive: jsonl(rowSchema, { maxItemSize: 64 * 1024, invalid: 'item' }), send: jsonl(resultSchema) },
    handler: async function * (request, reply) {
      let imported = 0
      let refused = 0
      for await (const row of reply.duplex.items) {
        const index = imported + refused
        try {
          if (!row.ok) throw row.error
          await save(row.value)
          imported++
          yield { index, ok: true }
        } catch (error) {
          refused++
          yield { index, ok: false, error: (error as Error).message }
        }
      }
      reply.duplex.setTrailers({ 'x-imported': imported, 'x-refused': refused })
    }
  })
}

async function main (): Promise<void> {
  const rows = new Map<string, number>()
  const address = await listen((app) => app.register(bulkImport, {
    save: async ({ name, amount }: Row) => rows.set(name, amount)
  }))
  console.log(`Each row is answered before the next is sent:

  (while sleep 1; do echo '{"name":"a","amount":1}'; echo '{"name":"b"}'; done) | curl -sN -T . -H content-type:application/jsonl ${address}/import`)
}

if (require.main === module) main()
