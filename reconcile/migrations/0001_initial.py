import django.db.models.deletion
import django.utils.timezone
import reconcile.models
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Suspension',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rule', models.CharField(max_length=200, unique=True)),
                ('run', models.UUIDField(help_text='Run that found the records drifting again.')),
                ('since', models.DateTimeField(default=django.utils.timezone.now)),
                ('why', models.TextField()),
            ],
        ),
        migrations.CreateModel(
            name='Finding',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('rule', reconcile.models.ExactField(max_length=200)),
                ('drift', models.CharField(max_length=10)),
                ('key', reconcile.models.ExactField(help_text='Primary key of the drifted row, as text.', max_length=255)),
                ('fingerprint', models.CharField(help_text="The rule's; what another rule of its name has found is another's.", max_length=64)),
                ('first_run', models.UUIDField(help_text='Run that found it first.')),
                ('first_found_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('found_at', models.DateTimeField(default=django.utils.timezone.now, help_text='When a run found it last.')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('rule', 'drift', 'key'), name='reconcile_finding_once')],
            },
        ),
        migrations.CreateModel(
            name='Receipt',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', reconcile.models.ExactField(help_text='Name of the effect.', max_length=100)),
                ('model', reconcile.models.ExactField(help_text="Label of the record's model.", max_length=200)),
                ('key', reconcile.models.ExactField(help_text='Primary key of the record, as text.', max_length=255)),
                ('state', models.CharField(choices=[('promised', 'Promised'), ('sent', 'Sent'), ('done', 'Done')], default='done', max_length=10)),
                ('recorded_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('version', reconcile.models.ExactField(blank=True, db_default='', default='', help_text="Hash of the columns that the effect was done for; empty if the effect doesn't depend on any.", max_length=32)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('name', 'model', 'key'), name='reconcile_receipt_once')],
            },
        ),
        migrations.CreateModel(
            name='Run',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('repair', 'Repair'), ('nightly', 'Nightly'), ('undo', 'Undo'), ('look', 'Look'), ('ensure', 'Ensure')], max_length=10)),
                ('state', models.CharField(choices=[('running', 'Running'), ('finished', 'Finished'), ('stopped', 'Stopped'), ('pausing', 'Pausing'), ('paused', 'Paused'), ('cancelling', 'Cancelling'), ('cancelled', 'Cancelled')], default='running', max_length=10)),
                ('now', models.DateTimeField(help_text='The clock that every rule of the run sees.')),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('why_stopped', models.TextField(blank=True, default='')),
                ('token', models.UUIDField(default=uuid.uuid4, help_text='Its worker; one with another token must stop.')),
                ('heartbeat', models.DateTimeField(default=django.utils.timezone.now, help_text='Last sign of life while it looks for drift.')),
                ('night', models.CharField(help_text='Set while a nightly run goes on, so that there is one at a time.', max_length=10, null=True, unique=True)),
                ('delivery', models.CharField(blank=True, default='', help_text="Id of the task's message, the same when a broker delivers it again.", max_length=255)),
                ('undoes', models.ForeignKey(help_text='Run whose writes it takes back.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='undone_by', to='reconcile.run')),
            ],
            options={
                'ordering': ('-started_at',),
            },
        ),
        migrations.CreateModel(
            name='Outcome',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rule', models.CharField(max_length=200)),
                ('position', models.PositiveIntegerField(help_text='Place in the order in which the run takes its rules.')),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('repairing', 'Repairing'), ('done', 'Done')], default='waiting', max_length=10)),
                ('leased', models.CharField(help_text="The rule's name while this run repairs it.", max_length=200, null=True, unique=True)),
                ('may_repair', models.BooleanField(default=False)),
                ('max_repairs', models.CharField(blank=True, default='', max_length=20)),
                ('max_deletes', models.CharField(blank=True, default='', max_length=20)),
                ('only', reconcile.models.KeysField(help_text='Keys of the records that it is about; null for all.', null=True)),
                ('kept_plan', models.JSONField(default=dict, help_text='What the plan that was given says of the rule; empty without a plan.')),
                ('fingerprint', models.CharField(blank=True, default='', help_text="The rule's, as it was repaired.", max_length=64)),
                ('status', models.CharField(blank=True, default='', max_length=10)),
                ('guarantee', models.CharField(blank=True, default='', max_length=10)),
                ('checked', models.PositiveBigIntegerField(default=0)),
                ('missing', models.PositiveBigIntegerField(default=0, help_text='Found before the repair.')),
                ('stale', models.PositiveBigIntegerField(default=0, help_text='Found before the repair.')),
                ('extra', models.PositiveBigIntegerField(default=0, help_text='Found before the repair.')),
                ('samples', models.JSONField(default=list)),
                ('culprits', models.JSONField(default=list, help_text='What set the drifted records apart from the others, before the repair.')),
                ('planned', models.JSONField(default=dict, help_text='Rows that the repair was to write, by verb.')),
                ('reported', models.JSONField(default=dict, help_text='Drifted rows that the rule leaves to people, by kind.')),
                ('left', models.PositiveBigIntegerField(help_text='Drifted rows at the end, those that are left to people among them; null if nobody could count them.', null=True)),
                ('stopped_by', models.CharField(blank=True, choices=[('lease', 'Lease'), ('suspension', 'Suspension'), ('guard', 'Guard'), ('person', 'Person')], default='', help_text='What kept the run from repairing it.', max_length=10)),
                ('skipped', models.PositiveBigIntegerField(default=0, help_text='Keys locked by others to the end, or failing.')),
                ('again', models.PositiveBigIntegerField(default=0, help_text='Drifted records that an earlier run had repaired already.')),
                ('warning', models.TextField(blank=True, default='', help_text='What people should look at, repaired or not.')),
                ('refused', models.JSONField(default=list, help_text='The first records that were set aside, each with its key and the reason.')),
                ('why_stopped', models.TextField(blank=True, default='')),
                ('error', models.TextField(blank=True, default='')),
                ('seconds', models.FloatField(default=0)),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='outcomes', to='reconcile.run')),
            ],
            options={
                'ordering': ('run', 'position'),
            },
        ),
        migrations.CreateModel(
            name='WorkItem',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('drift', models.CharField(max_length=10)),
                ('state', models.CharField(choices=[('running', 'Running'), ('done', 'Done')], default='running', max_length=10)),
                ('token', models.UUIDField(help_text='Owner of the work item; a worker with another token must stop.')),
                ('heartbeat', models.DateTimeField(default=django.utils.timezone.now)),
                ('cursor', models.TextField(help_text='Largest key that was repaired or set aside.', null=True)),
                ('chunks', models.PositiveBigIntegerField(default=0)),
                ('quarantined', models.PositiveBigIntegerField(default=0, help_text='Keys to be tried again at the end.')),
                ('outcome', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='work_items', to='reconcile.outcome')),
            ],
        ),
        migrations.CreateModel(
            name='Chunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveBigIntegerField()),
                ('keys', reconcile.models.KeysField(default=list)),
                ('committed_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('work_item', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='committed', to='reconcile.workitem')),
            ],
        ),
        migrations.CreateModel(
            name='Change',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('chunk', models.PositiveBigIntegerField()),
                ('verb', models.CharField(max_length=10)),
                ('model', models.CharField(help_text='Label of the written model.', max_length=200)),
                ('key', models.TextField(help_text='Primary key of the written row, as text.')),
                ('before', models.JSONField(null=True)),
                ('after', models.JSONField(null=True)),
                ('work_item', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='changes', to='reconcile.workitem')),
            ],
        ),
        migrations.CreateModel(
            name='WrittenRows',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('verb', models.CharField(max_length=10)),
                ('rows', models.PositiveBigIntegerField(default=0)),
                ('work_item', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='counts', to='reconcile.workitem')),
            ],
        ),
        migrations.AddConstraint(
            model_name='outcome',
            constraint=models.UniqueConstraint(fields=('run', 'rule'), name='reconcile_outcome_once'),
        ),
        migrations.AddConstraint(
            model_name='workitem',
            constraint=models.UniqueConstraint(fields=('outcome', 'drift'), name='reconcile_work_item_once'),
        ),
        migrations.AddConstraint(
            model_name='chunk',
            constraint=models.UniqueConstraint(fields=('work_item', 'number'), name='reconcile_chunk_once'),
        ),
        migrations.AddIndex(
            model_name='change',
            index=models.Index(fields=['work_item', 'chunk'], name='reconcile_change_chunk'),
        ),
        migrations.AddConstraint(
            model_name='writtenrows',
            constraint=models.UniqueConstraint(fields=('work_item', 'verb'), name='reconcile_written_once'),
        ),
    ]
